package main

import (
	"fmt"
	"hash/crc32"
	"net/http"
	"time"
)

// pageBytes is the size of the pieces that a report is made of, as a database hands out its rows.
const pageBytes = 1 << 20

// row is the text that reports are filled with, so that each of their pages is really in memory.
var row = []byte(`{"id": 1, "name": "a customer", "orders": [{"sku": "A-1", "count": 2}, {"sku": "B-7", "count": 1}]}` + "\n")

// answer makes a report, waits as for another service, and answers with the report's size and checksum. All of it is in
// use until then, and nothing of it afterwards.
func answer(w http.ResponseWriter, r *http.Request, s settings) {
	pages := makeReport(s.requestBytes)
	select {
	case <-r.Context().Done():
		return
	case <-time.After(s.wait):
	}
	size, sum := 0, uint32(0)
	for _, page := range pages {
		size += len(page)
		sum = crc32.Update(sum, crc32.IEEETable, page)
	}
	fmt.Fprintf(w, "%d bytes, checksum %08x\n", size, sum)
}

// makeReport fills as many pages as count bytes take. It is what a heap profile names.
//
//go:noinline
func makeReport(count int) [][]byte {
	pages := make([][]byte, 0, (count+pageBytes-1)/pageBytes)
	for count > 0 {
		page := make([]byte, min(count, pageBytes))
		for written := 0; written < len(page); {
			written += copy(page[written:], row)
		}
		pages = append(pages, page)
		count -= len(page)
	}
	return pages
}
