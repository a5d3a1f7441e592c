package main

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"time"
)

const (
	tick        = 2 * time.Millisecond
	chunkBytes  = 64 << 10
	pageBytes   = 4 << 10
	nodeBytes   = 64
	valueBytes  = 4 << 10
	readsPerPut = 4
	firstBytes  = 1 << 20
)

// paced calls take, which takes about unit bytes each time, as often as the rate asks for; a program that can't keep
// up takes as fast as it can.
func paced(rate, unit int, take func()) {
	began := time.Now()
	for taken := 0; ; {
		for goal := int(float64(rate) * time.Since(began).Seconds()); taken < goal; taken += unit {
			take()
		}
		time.Sleep(tick)
	}
}

var chunks [][]byte

// leak keeps chunks of plain bytes. What it holds before the signal it took in the same way, only faster.
func leak(rate, floor int, start <-chan os.Signal) {
	for len(chunks)*chunkBytes < floor {
		takeChunk()
	}
	ready()
	<-start
	paced(rate, chunkBytes, takeChunk)
}

//go:noinline
func takeChunk() {
	chunk := make([]byte, chunkBytes)
	for at := 0; at < len(chunk); at += pageBytes {
		chunk[at] = 1 // only a page that was written to is charged
	}
	chunks = append(chunks, chunk)
}

type node struct {
	next, other *node
	values      [6]uint64
}

var head *node

// pointers keeps a list of small objects, so that each collection has as many pointers to follow.
func pointers(rate, _ int, start <-chan os.Signal) {
	ready()
	<-start
	paced(rate, 1024*nodeBytes, takeNodes)
}

//go:noinline
func takeNodes() {
	for range [1024]struct{}{} {
		var other *node
		if head != nil {
			other = head.next
		}
		head = &node{next: head, other: other}
	}
}

var buffer []byte

// doubling appends a buffer to itself: the next step needs twice what there is, beside it.
func doubling(_, _ int, start <-chan os.Signal) {
	buffer = make([]byte, firstBytes)
	ready()
	<-start
	for {
		double()
	}
}

//go:noinline
func double() {
	buffer = append(buffer, buffer...)
}

type record struct {
	ID    int               `json:"id"`
	Name  string            `json:"name"`
	Tags  []string          `json:"tags"`
	Attrs map[string]string `json:"attrs"`
}

var (
	records []record
	encoded []byte
)

// marshal encodes all its records again each time that they have become half as many more.
func marshal(_, _ int, start <-chan os.Signal) {
	ready()
	<-start
	for goal := 4096; ; goal += goal / 2 {
		for len(records) < goal {
			records = append(records, newRecord(len(records)))
		}
		encodeRecords()
	}
}

func newRecord(id int) record {
	return record{
		ID:    id,
		Name:  fmt.Sprintf("record number %d", id),
		Tags:  []string{"one", "two", "three"},
		Attrs: map[string]string{"owner": fmt.Sprint("team-", id%97), "state": "active"},
	}
}

//go:noinline
func encodeRecords() {
	bytes, err := json.Marshal(records)
	if err != nil {
		panic(err)
	}
	encoded = bytes
}

var entries = map[string][]byte{}

// cache puts entries and reads others, and never evicts.
func cache(rate, _ int, start <-chan os.Signal) {
	ready()
	<-start
	source := rand.New(rand.NewSource(1))
	paced(rate, valueBytes, func() { put(source) })
}

//go:noinline
func put(source *rand.Rand) {
	value := make([]byte, valueBytes)
	for range [readsPerPut]struct{}{} {
		if hit := entries[key(source.Intn(len(entries)+1))]; hit != nil {
			value[0] += hit[0]
		}
	}
	value[0]++ // the page is charged
	entries[key(len(entries))] = value
}

func key(number int) string {
	return fmt.Sprintf("user:%010d", number)
}
