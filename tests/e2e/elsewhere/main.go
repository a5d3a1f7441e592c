// Command elsewhere takes memory that is no Go heap until it is killed: "elsewhere mmap" by the kernel's hand,
// "elsewhere stacks" by goroutines that go deep and stay there.
package main

import (
	"log"
	"os"
	"runtime"
	"syscall"
	"time"
)

const (
	pieceBytes = 1 << 20
	pause      = 20 * time.Millisecond
)

// kept is a heap to speak of, for the profile not to be empty.
var kept = make([]byte, 4<<20)

func main() {
	if len(os.Args) != 2 || (os.Args[1] != "mmap" && os.Args[1] != "stacks") {
		log.Fatal("say mmap or stacks")
	}
	profiled := runtime.MemProfileRate // the linker keeps the heap profile only where it is mentioned
	runtime.MemProfile(nil, profiled > 0)
	time.Sleep(2 * time.Second)
	for {
		if os.Args[1] == "mmap" {
			takePages()
		} else {
			for i := 0; i < 4; i++ {
				go descend(1 << 8)
			}
		}
		time.Sleep(pause)
	}
}

func takePages() {
	pages, err := syscall.Mmap(-1, 0, pieceBytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		log.Fatal(err)
	}
	for at := 0; at < len(pages); at += 4096 {
		pages[at] = 1
	}
}

// descend takes about a kibibyte of stack for each step down, 256 KiB or so in all, and stays.
//
//go:noinline
func descend(steps int) byte {
	var frame [1024]byte
	frame[steps%len(frame)] = byte(steps)
	if steps == 0 {
		select {}
	}
	return descend(steps-1) + frame[steps%len(frame)] + kept[steps]
}
