// Command keeper allocates 256 KiB at a time, as for requests, and keeps one in four for good until it is killed: a leak
// in code that frees most of what it allocates.
package main

import (
	"runtime"
	"time"
)

const (
	requestBytes = 256 << 10
	keptOneIn    = 4
	pause        = 5 * time.Millisecond
)

var kept [][]byte

func main() {
	profiled := runtime.MemProfileRate // the linker keeps the heap profile only where it is mentioned
	runtime.MemProfile(nil, profiled > 0)
	time.Sleep(2 * time.Second)
	for request := 1; ; request++ {
		body := serve()
		if request%keptOneIn == 0 {
			kept = append(kept, body)
		}
		time.Sleep(pause)
	}
}

// serve makes an answer, every page of it in memory. It is what a heap profile names.
//
//go:noinline
func serve() []byte {
	body := make([]byte, requestBytes)
	for at := 0; at < len(body); at += 4096 {
		body[at] = 1
	}
	return body
}
