// Command restless is never the same for long: it moves its pprof from port to port and has children that come and go.
//
// SIGUSR1 makes it leak until it is killed, SIGTERM makes it exit with 0, SIGINT with 1.
package main

import (
	"log"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

const (
	stay    = 400 * time.Millisecond
	piece   = 256 << 10
	leakPer = 5 * time.Millisecond // 50 MiB a second
)

var held [][]byte

func main() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGTERM, syscall.SIGINT)
	serve() // one that stays
	go wander()
	for got := range signals {
		switch got {
		case syscall.SIGTERM:
			os.Exit(0)
		case syscall.SIGINT:
			os.Exit(1)
		default:
			go leak()
		}
	}
}

// wander has a second port and a child for a moment each, for ever.
func wander() {
	for {
		listener := serve()
		child := exec.Command("/bin/sleep", "0.2")
		child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // the container's end is told by our PID
		if err := child.Run(); err != nil {
			log.Print(err)
		}
		time.Sleep(stay)
		listener.Close()
	}
}

// serve answers pprof on a port of the kernel's choosing.
func serve() net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go http.Serve(listener, nil)
	return listener
}

func leak() {
	for {
		grow()
		time.Sleep(leakPer)
	}
}

//go:noinline
func grow() {
	block := make([]byte, piece)
	for at := range block {
		block[at] = 1
	}
	held = append(held, block)
}
