// Command program holds memory in ways that are known to whoever reads its heap profile from outside.
//
// It obeys one command a line on standard input and answers each with a line:
//
//	leak N SIZE    hold N objects of SIZE bytes, allocated by main.leak
//	evict N        hold only each Nth of the objects, at their places
//	stacks N       allocate once on each of N distinct stacks
//	features       allocate through generics, inlined calls, closures, maps, methods and other goroutines
//	gc             run two collections, so that all is published
//	once           run one collection
//	profile PATH   write the heap profile as /debug/pprof/heap does
//	rate N         set runtime.MemProfileRate, which GODEBUG=memprofilerate=N does better: from the start
//	churn MS       allocate and collect from several goroutines for a time
//	limit N        set the memory limit
//	exec           run itself anew in the same process
//	stats          print heap statistics of runtime.MemStats
//	map TEXT       map a page full of TEXT, none of Go's memory, and answer its address in hexadecimal
//	unmap          unmap all of these pages
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

var held [][]byte
var kept []any
var mapped [][]byte

//go:noinline
func leak(count, size int) {
	for i := 0; i < count; i++ {
		held = append(held, make([]byte, size))
	}
}

func evict(nth int) {
	rest := make([][]byte, 0, len(held)/nth+1)
	for i := 0; i < len(held); i += nth {
		rest = append(rest, held[i])
	}
	held = rest
}

//go:noinline
func left(path uint, depth int) {
	fork(path, depth)
}

//go:noinline
func right(path uint, depth int) {
	fork(path, depth)
}

//go:noinline
func fork(path uint, depth int) {
	if depth == 0 {
		held = append(held, make([]byte, 48))
		return
	}
	if path&1 == 0 {
		left(path>>1, depth-1)
	} else {
		right(path>>1, depth-1)
	}
}

func stacks(count int) {
	held = append(make([][]byte, 0, len(held)+count+1), held...)
	for i := 0; i < count; i++ {
		fork(uint(i), 16)
	}
}

type pair[K comparable, V any] struct {
	key   K
	value V
	next  *pair[K, V]
}

func prepend[K comparable, V any](list *pair[K, V], key K, value V) *pair[K, V] {
	return &pair[K, V]{key, value, list}
}

type shape interface{ grow() []byte }

type circle struct{ radius int }

func (c circle) grow() []byte { return innermost(c.radius * 3) }

type square struct{ circle }

func innermost(size int) []byte { return inner(size + 8) }

func inner(size int) []byte { return make([]byte, size) }

func recurse(depth int) []byte {
	if depth == 0 {
		return innermost(4096)
	}
	b := recurse(depth - 1)
	return b
}

func features() {
	var list *pair[string, int]
	for i := 0; i < 50; i++ {
		list = prepend(list, fmt.Sprint(i), i)
	}
	other := prepend[int, []string](nil, 1, strings.Split(strings.Repeat("a,", 100), ","))
	kept = append(kept, list, other)
	for _, s := range []shape{circle{100}, square{circle{200}}, &square{circle{300}}} {
		kept = append(kept, s.grow())
	}
	table := map[string][]int{}
	for i := 0; i < 1000; i++ {
		table[fmt.Sprintf("key-%d", i)] = make([]int, i%7)
	}
	kept = append(kept, table, recurse(5), recurse(60), recurse(200))
	func() {
		defer func() { kept = append(kept, recover()) }()
		var empty []int
		kept = append(kept, empty[len(kept)])
	}()
	sort.Slice(kept, func(i, j int) bool { kept[0] = innermost(7); return i < j })
	var wait sync.WaitGroup
	var lock sync.Mutex
	for i := 0; i < 8; i++ {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			b := innermost(1000 * i)
			lock.Lock()
			kept = append(kept, b)
			lock.Unlock()
		}(i)
	}
	wait.Wait()
	foreign()
}

func churn(duration time.Duration) {
	end := time.Now().Add(duration)
	var wait sync.WaitGroup
	for w := uint(0); w < 4; w++ {
		wait.Add(1)
		go func(w uint) {
			defer wait.Done()
			var mine [][]byte
			for i := uint(0); time.Now().Before(end); i++ {
				mine = append(mine, recurse(int(i%20)))
				if len(mine) > 1000 {
					mine = nil
				}
			}
		}(w)
	}
	for time.Now().Before(end) {
		runtime.GC()
	}
	wait.Wait()
}

func profile(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return pprof.Lookup("heap").WriteTo(file, 0)
}

func mapPage(text string) (string, error) {
	page, err := syscall.Mmap(-1, 0, os.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return "", err
	}
	for i := range page {
		page[i] = text[i%len(text)]
	}
	mapped = append(mapped, page)
	return fmt.Sprintf("%p", &page[0]), nil
}

func unmapPages() error {
	for _, page := range mapped {
		if err := syscall.Munmap(page); err != nil {
			return err
		}
	}
	mapped = nil
	return nil
}

func duplicate(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o600)
}

func main() {
	input := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	for input.Scan() {
		var verb, path, copied string
		var n, size int
		line := input.Text()
		fmt.Sscan(line, &verb)
		switch verb {
		case "leak":
			fmt.Sscan(line, &verb, &n, &size)
			leak(n, size)
		case "evict":
			fmt.Sscan(line, &verb, &n)
			evict(n)
		case "stacks":
			fmt.Sscan(line, &verb, &n)
			stacks(n)
		case "features":
			features()
		case "once":
			runtime.GC()
		case "gc":
			runtime.GC()
			runtime.GC()
		case "rate":
			fmt.Sscan(line, &verb, &n)
			runtime.MemProfileRate = n
		case "churn":
			fmt.Sscan(line, &verb, &n)
			churn(time.Duration(n) * time.Millisecond)
		case "limit":
			fmt.Sscan(line, &verb, &n)
			debug.SetMemoryLimit(int64(n))
		case "exec":
			if err := syscall.Exec("/proc/self/exe", os.Args, os.Environ()); err != nil {
				fmt.Println(err)
			}
		case "stats":
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			fmt.Println(m.HeapAlloc, m.HeapInuse, m.HeapReleased, m.NextGC)
			continue
		case "map":
			fmt.Sscan(line, &verb, &path)
			address, err := mapPage(path)
			if err != nil {
				address = err.Error()
			}
			fmt.Println(address)
			continue
		case "unmap":
			if err := unmapPages(); err != nil {
				fmt.Println(err)
				continue
			}
		case "copy":
			fmt.Sscan(line, &verb, &path, &copied)
			if err := duplicate(path, copied); err != nil {
				fmt.Println(err)
				continue
			}
		case "profile":
			fmt.Sscan(line, &verb, &path)
			if err := profile(path); err != nil {
				fmt.Println(err)
				continue
			}
		default:
			fmt.Println("what?")
			continue
		}
		fmt.Println("done")
	}
}
