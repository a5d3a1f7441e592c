// Command go-stacks has as many different stacks in its heap profile as it is told to, first by STACKS, then over HTTP.
//
// It prints the address that it listens on. Every allocation is in the profile, so that the number is exact but for the
// few hundred of the runtime's and the server's own.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	_ "net/http/pprof" // without it the linker leaves the profile out
	"os"
	"runtime"
	"strconv"
)

const callLevels = 17 // up to 131072 stacks

var (
	made int
	held [][]byte
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("go-stacks: ")
	runtime.MemProfileRate = 1
	makeStacks(number(os.Getenv("STACKS")))
	http.HandleFunc("/more", more)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(listener, nil))
}

// more answers when ?stacks= further ones are there.
func more(w http.ResponseWriter, r *http.Request) {
	makeStacks(number(r.FormValue("stacks")))
	fmt.Fprintln(w, "ok")
}

// makeStacks allocates, once each, through count chains of callers that were not used before.
func makeStacks(count int) {
	if made+count > 1<<callLevels {
		log.Fatalf("%d stacks are more than %d", made+count, 1<<callLevels)
	}
	for end := made + count; made < end; made++ {
		descend(made, callLevels)
	}
}

//go:noinline
func descend(path, levels int) {
	if levels == 0 {
		held = append(held, make([]byte, 48))
		return
	}
	if path&1 == 1 {
		descend(path>>1, levels-1) // the two calls differ in nothing but their address
	} else {
		descend(path>>1, levels-1)
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
