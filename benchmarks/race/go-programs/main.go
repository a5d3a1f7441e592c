// Command go-programs is each program of the race: it takes memory in the way that PROGRAM names until it is killed.
//
// It serves net/http/pprof, prints the address that it listens on, and begins to grow on SIGUSR1. RATE is in bytes a
// second, for the programs that keep to one; FLOOR is how much the leak holds before the signal. BUSY=1 burns a CPU
// from the signal on.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	_ "net/http/pprof" // serves /debug/pprof/ on the default mux
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

var programs = map[string]func(rate, floor int, start <-chan os.Signal){
	"leak":     leak,
	"pointers": pointers,
	"doubling": doubling,
	"json":     marshal,
	"cache":    cache,
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("go-programs: ")
	grow, known := programs[os.Getenv("PROGRAM")]
	if !known {
		log.Fatalf("PROGRAM=%q is none of this file's", os.Getenv("PROGRAM"))
	}
	rate, floor := number("RATE"), number("FLOOR")
	signals, start := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.Serve(listener, nil)) }()
	go func() {
		received := <-signals
		if os.Getenv("BUSY") == "1" {
			go burn()
		}
		start <- received
	}()
	ready = func() { fmt.Println(listener.Addr()) }
	grow(rate, floor, start)
}

// ready tells the race that the program holds what it is to hold before the signal.
var ready func()

func burn() {
	for x := uint64(1); ; {
		x = x*31 + 1
	}
}

func number(name string) int {
	text := os.Getenv(name)
	if text == "" {
		return 0
	}
	value, err := strconv.Atoi(text)
	if err != nil || value < 0 {
		log.Fatalf("%s=%q is not a number from 0 on", name, text)
	}
	return value
}
