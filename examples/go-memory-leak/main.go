// Command go-memory-leak is a small HTTP server that leaks memory until it is killed.
//
// It serves net/http/pprof as any Go service may, and keeps every document that serializeJSON makes. How fast, and
// after how long, is told by the environment: see README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	_ "net/http/pprof" // serves /debug/pprof/ on the default mux
	"os"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// heldBytes counts what the leak keeps alive.
var heldBytes atomic.Int64

func main() {
	log.SetFlags(0)
	log.SetPrefix("go-memory-leak: ")
	s, err := readSettings()
	if err != nil {
		log.Print(err)
		os.Exit(2)
	}
	if err := serve(s); err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

// serve answers HTTP and leaks beside it until SIGTERM or SIGINT.
func serve(s settings) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	listener, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("can't listen on ADDR %q: %w", s.addr, err)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "holding %d bytes\n", heldBytes.Load())
	})
	log.Printf("listening on %s, profiles below /debug/pprof/, %s leak in %s", listener.Addr(), s.mode, s.delay)
	if s.busy {
		burn(ctx)
	}
	go leak(ctx, s)
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		shutdown, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = server.Shutdown(shutdown)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// burn keeps every CPU that Go may use busy.
func burn(ctx context.Context) {
	for i := 0; i < runtime.GOMAXPROCS(0); i++ {
		go func() {
			for x := 1; ctx.Err() == nil; {
				for j := 0; j < 1<<20; j++ {
					x = x*31 + j
				}
			}
		}()
	}
}
