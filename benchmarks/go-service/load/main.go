// Command load asks a URL again and again, and prints as JSON how fast the answers came.
//
// With -rate requests begin at that even pace, however long the answers take, and latency runs from the moment each was
// due: a server that stalls is charged for every request that it delays. Without, -clients ask as fast as they can.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

const patience = 20 * time.Second

type report struct {
	Requests int     `json:"requests"`
	Failures int64   `json:"failures"`
	PerS     float64 `json:"per_s"`
	P50S     float64 `json:"p50_s"`
	P99S     float64 `json:"p99_s"`
	MostS    float64 `json:"most_s"`
}

type asker struct {
	client    *http.Client
	url       string
	failures  atomic.Int64
	mutex     sync.Mutex
	latencies []time.Duration
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("load: ")
	url := flag.String("url", "", "what to ask")
	rate := flag.Float64("rate", 0, "requests a second; 0 for as many as -clients can")
	clients := flag.Int("clients", 4, "how many ask at once without -rate")
	seconds := flag.Float64("seconds", 1, "for how long")
	warmUp := flag.Float64("warm-up", 0.2, "for how many seconds to ask before it counts")
	flag.Parse()
	if *url == "" || *rate < 0 || *clients < 1 || *seconds <= 0 {
		log.Fatal("give -url, a -rate from 0 on, at least one of -clients, and -seconds above 0")
	}
	transport := &http.Transport{MaxIdleConns: 0, MaxIdleConnsPerHost: 1024}
	a := &asker{client: &http.Client{Transport: transport, Timeout: patience}, url: *url}
	closedLoop(a, *clients, span(*warmUp))
	a.latencies = nil
	a.failures.Store(0)
	began := time.Now()
	if *rate > 0 {
		openLoop(a, *rate, span(*seconds))
	} else {
		closedLoop(a, *clients, span(*seconds))
	}
	if err := json.NewEncoder(os.Stdout).Encode(a.report(time.Since(began))); err != nil {
		log.Fatal(err)
	}
}

func closedLoop(a *asker, clients int, length time.Duration) {
	var done sync.WaitGroup
	end := time.Now().Add(length)
	for i := 0; i < clients; i++ {
		done.Add(1)
		go func() {
			defer done.Done()
			for due := time.Now(); due.Before(end); due = time.Now() {
				a.ask(due)
			}
		}()
	}
	done.Wait()
}

func openLoop(a *asker, rate float64, length time.Duration) {
	var done sync.WaitGroup
	began := time.Now()
	count := int(rate * length.Seconds())
	for i := 0; i < count; i++ {
		due := began.Add(span(float64(i) / rate))
		time.Sleep(time.Until(due))
		done.Add(1)
		go func() {
			defer done.Done()
			a.ask(due)
		}()
	}
	done.Wait()
}

func (a *asker) ask(due time.Time) {
	err := a.get()
	took := time.Since(due)
	if err != nil {
		a.failures.Add(1)
		return
	}
	a.mutex.Lock()
	a.latencies = append(a.latencies, took)
	a.mutex.Unlock()
}

func (a *asker) get() error {
	response, err := a.client.Get(a.url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP %d", response.StatusCode)
	}
	return nil
}

func (a *asker) report(took time.Duration) report {
	sort.Slice(a.latencies, func(i, j int) bool { return a.latencies[i] < a.latencies[j] })
	return report{
		Requests: len(a.latencies),
		Failures: a.failures.Load(),
		PerS:     float64(len(a.latencies)) / took.Seconds(),
		P50S:     a.quantile(0.50),
		P99S:     a.quantile(0.99),
		MostS:    a.quantile(1),
	}
}

// quantile is the nearest rank, so that it is one of the latencies; 0 if there are none.
func (a *asker) quantile(part float64) float64 {
	if len(a.latencies) == 0 {
		return 0
	}
	rank := int(part*float64(len(a.latencies))+0.999999) - 1
	if rank < 0 {
		rank = 0
	}
	return a.latencies[rank].Seconds()
}

func span(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second))
}
