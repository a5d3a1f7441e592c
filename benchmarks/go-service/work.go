package main

import (
	"encoding/json"
	"fmt"
	"log"
	"math/rand"
	"net/http"
	"time"
)

const (
	recordsPerAnswer = 32
	longGap          = 100 * time.Microsecond // what a goroutine that runs alone on a core hardly ever sees
)

// record is what /work serves: small objects full of pointers, which give the collector something to do.
type record struct {
	ID         int               `json:"id"`
	Name       string            `json:"name"`
	Tags       []string          `json:"tags"`
	Attributes map[string]string `json:"attributes"`
}

var records []*record

func keepRecords(count int) {
	for id := 0; id < count; id++ {
		records = append(records, &record{
			ID:   id,
			Name: fmt.Sprintf("record %d", id),
			Tags: []string{fmt.Sprintf("tag-%d", id%7), fmt.Sprintf("tag-%d", id%11)},
			Attributes: map[string]string{
				"owner": fmt.Sprintf("team-%d", id%97),
				"path":  fmt.Sprintf("/srv/%d/%d", id%1000, id),
			},
		})
	}
}

// work answers with some of the records after a copy by way of JSON: nearly all that it allocates is garbage at once.
func work(w http.ResponseWriter, _ *http.Request) {
	chosen := make([]*record, 0, recordsPerAnswer)
	for i := 0; i < recordsPerAnswer; i++ {
		chosen = append(chosen, records[rand.Intn(len(records))])
	}
	text, err := json.Marshal(chosen)
	if err != nil {
		log.Fatal(err)
	}
	var copied []record
	if err := json.Unmarshal(text, &copied); err != nil {
		log.Fatal(err)
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(copied); err != nil {
		log.Print(err)
	}
}

// stall reads the clock for ?ms= without rest, and tells how long it was kept from that: the longest time between two
// readings, and the sum of those that are long.
func stall(w http.ResponseWriter, r *http.Request) {
	length := time.Duration(number(r.FormValue("ms"))) * time.Millisecond
	var longest, lost time.Duration
	began := time.Now()
	before := began
	for before.Sub(began) < length {
		now := time.Now()
		gap := now.Sub(before)
		before = now
		if gap > longest {
			longest = gap
		}
		if gap > longGap {
			lost += gap
		}
	}
	fmt.Fprintf(w, `{"longest_s": %.9f, "lost_s": %.9f, "window_s": %.9f}`+"\n",
		longest.Seconds(), lost.Seconds(), before.Sub(began).Seconds())
}
