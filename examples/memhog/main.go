// Command memhog is a small HTTP server that leaks nothing and is OOM-killed all the same.
//
// Each request takes 100 MB and keeps none of it. Go's collector doesn't know the container's limit: after it has seen
// four requests at once it lets as much garbage again pile up before it looks the next time. See README.md.
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
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("memhog: ")
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

// serve answers HTTP until SIGTERM or SIGINT.
func serve(s settings) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	listener, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("can't listen on ADDR %q: %w", s.addr, err)
	}
	http.HandleFunc("/report", func(w http.ResponseWriter, r *http.Request) { answer(w, r, s) })
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	log.Printf("listening on %s, a report takes %d bytes, profiles below /debug/pprof/", listener.Addr(), s.requestBytes)
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
