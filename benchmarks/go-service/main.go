// Command go-service is the app that the benchmarks watch: it holds or leaks as much memory as it is told to over HTTP.
//
// It prints the address that it listens on. STACKS gives its heap profile about as many stacks, RECORDS is how many
// records it keeps for /work, BUSY=1 burns every CPU.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	_ "net/http/pprof" // serves /debug/pprof/ on the default mux
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"time"
)

const (
	chunkBytes   = 64 << 10
	pageBytes    = 4 << 10
	leakTick     = 2 * time.Millisecond
	visibleBytes = 2 << 20 // four times the sampling rate of heap profiles: 98 of 100 such allocations are seen
	callLevels   = 16      // up to 65536 stacks
)

var (
	mutex sync.Mutex
	held  [][]byte
	sink  []byte
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("go-service: ")
	makeStacks(number(os.Getenv("STACKS")))
	keepRecords(number(os.Getenv("RECORDS")))
	http.HandleFunc("/hold", hold)
	http.HandleFunc("/leak", leak)
	http.HandleFunc("/work", work)
	http.HandleFunc("/stall", stall)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	if os.Getenv("BUSY") == "1" {
		burn()
	}
	log.Fatal(http.Serve(listener, nil))
}

// hold answers when the program holds ?bytes=, no more and no less.
func hold(w http.ResponseWriter, r *http.Request) {
	holdBytes(number(r.FormValue("bytes")))
	fmt.Fprintln(w, "ok")
}

// leak answers at once and takes ?rate= bytes more each second from then on.
func leak(w http.ResponseWriter, r *http.Request) {
	rate := float64(number(r.FormValue("rate")))
	mutex.Lock()
	base := len(held) * chunkBytes
	mutex.Unlock()
	began := time.Now()
	go func() {
		for {
			holdBytes(base + int(rate*time.Since(began).Seconds()))
			time.Sleep(leakTick)
		}
	}()
	fmt.Fprintln(w, "ok")
}

func holdBytes(goal int) {
	mutex.Lock()
	defer mutex.Unlock()
	if goal < len(held)*chunkBytes {
		held = append([][]byte(nil), held[:goal/chunkBytes]...)
		debug.FreeOSMemory()
	}
	for (len(held)+1)*chunkBytes <= goal {
		held = append(held, take())
	}
}

//go:noinline
func take() []byte {
	chunk := make([]byte, chunkBytes)
	for at := 0; at < len(chunk); at += pageBytes {
		chunk[at] = 1 // only a page that was written to is charged
	}
	return chunk
}

// makeStacks allocates, once each, through count different chains of callers. None of it is kept, and as the collector
// rests meanwhile, none of it is reused: memory fresh from the kernel needs no zeroing, so that no page is touched.
func makeStacks(count int) {
	defer debug.FreeOSMemory()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for path := 0; path < count; path++ {
		descend(path, callLevels)
	}
}

//go:noinline
func descend(path, levels int) {
	if levels == 0 {
		sink = make([]byte, visibleBytes)
		return
	}
	if path&1 == 1 {
		descend(path>>1, levels-1) // the two calls differ in nothing but their address
	} else {
		descend(path>>1, levels-1)
	}
}

func burn() {
	for i := 0; i < runtime.GOMAXPROCS(0); i++ {
		go func() {
			for x := 1; ; {
				x = x*31 + 1
			}
		}()
	}
}

func number(text string) int {
	if text == "" {
		return 0
	}
	value, err := strconv.Atoi(text)
	if err != nil || value < 0 {
		log.Fatalf("%q is not a number from 0 on", text)
	}
	return value
}
