// Command program is a Go service for the pod tests that does what the example doesn't: it serves its profiles under
// another path, only to who has the token and as slowly as it is told, and it may leak in a child that it outlives.
package main

import (
	"log"
	"net/http"
	"net/http/pprof"
	"os"
	"os/exec"
	"strconv"
	"time"
)

var held [][]byte

func main() {
	if os.Getenv("ROLE") == "parent" {
		raise()
	}
	prefix, token := os.Getenv("PREFIX"), os.Getenv("TOKEN")
	mux := http.NewServeMux()
	mux.Handle(prefix+"/heap", slow(pprof.Handler("heap")))
	mux.Handle(prefix+"/goroutine", slow(pprof.Handler("goroutine")))
	// As pprof.Index does for the name of a profile that there isn't.
	mux.Handle(prefix+"/", pprof.Handler("unknown"))
	go leak()
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if token != "" && r.Header.Get("Authorization") != "Bearer "+token {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	})))
}

// slow answers after the seconds that SLOW says.
func slow(handler http.Handler) http.Handler {
	wait, _ := strconv.Atoi(os.Getenv("SLOW"))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Duration(wait) * time.Second)
		handler.ServeHTTP(w, r)
	})
}

// raise runs the leak in one child and then lives on without it.
func raise() {
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), "ROLE=child")
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	log.Printf("the child ended: %v", child.Run())
	time.Sleep(time.Hour)
}

// leak takes 16 MiB a second after three seconds of calm, up to the MiB that MOST says.
func leak() {
	most, _ := strconv.Atoi(os.Getenv("MOST"))
	time.Sleep(3 * time.Second)
	for most == 0 || len(held) < most*4 {
		held = append(held, hoard(1<<18))
		time.Sleep(time.Second / 64)
	}
}

//go:noinline
func hoard(size int) []byte {
	page := make([]byte, size)
	for i := 0; i < size; i += 4096 {
		page[i] = 1
	}
	return page
}
