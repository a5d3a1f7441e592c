package main

import (
	"context"
	"log"
	"time"
)

// record is the text that documents are filled with, so that each of their pages is really in memory.
var record = []byte(`{"id": 1, "name": "a customer", "orders": [{"sku": "A-1", "count": 2}, {"sku": "B-7", "count": 1}]}` + "\n")

// documents is the leak: a cache that only ever grows.
var documents [][]byte

// leak runs a round every s.interval, after s.delay, until ctx ends or s.maxBytes are held.
func leak(ctx context.Context, s settings) {
	if s.mode == "off" || !pause(ctx, s.delay) {
		return
	}
	log.Printf("the leak begins")
	began, goal := time.Now(), float64(s.startBytes)
	for {
		if s.mode == "steady" {
			goal = s.bytesPerS * time.Since(began).Seconds()
		}
		full := s.maxBytes > 0 && goal >= float64(s.maxBytes)
		if full {
			goal = float64(s.maxBytes)
		}
		more := int(goal) - int(heldBytes.Load())
		if s.mode == "doubling" {
			grow(more)
		} else {
			collect(s.chunkBytes, more)
		}
		if full {
			log.Printf("the leak ends with %d bytes", heldBytes.Load())
			return
		}
		if !pause(ctx, s.interval) {
			return
		}
		goal *= s.factor
	}
}

// collect adds whole documents to the cache, as near to more bytes as they come.
func collect(chunkBytes, more int) {
	for ; more >= chunkBytes; more -= chunkBytes {
		documents = append(documents, serializeJSON(nil, chunkBytes))
		heldBytes.Add(int64(chunkBytes))
	}
}

// grow makes one single document longer, which copies all of it, as append does when it runs out of room.
func grow(more int) {
	if len(documents) == 0 {
		documents = append(documents, nil)
	}
	documents[0] = serializeJSON(documents[0], more)
	heldBytes.Store(int64(len(documents[0])))
}

// serializeJSON appends count bytes of JSON to buffer. What it allocates is what the profile must name.
//
// What is there is copied again and again until it fills the rest: a buffer that doubles is two single copies of all of
// it, and Go can't stop the program for a profile while one of them is under way.
//
//go:noinline
func serializeJSON(buffer []byte, count int) []byte {
	grown := make([]byte, len(buffer)+count)
	written := copy(grown, buffer)
	if written == 0 {
		written = copy(grown, record)
	}
	for written < len(grown) {
		written += copy(grown[written:], grown[:written])
	}
	return grown
}

// pause waits, and tells whether to go on.
func pause(ctx context.Context, wait time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(wait):
		return true
	}
}
