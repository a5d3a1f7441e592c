// Command silent allocates, but nothing in it can ever read a heap profile, so the linker turns profiling off.
package main

import "os"

var held [][]byte

func main() {
	for i := 0; i < 100; i++ {
		held = append(held, make([]byte, 1<<20))
	}
	os.Stdout.WriteString("ready\n")
	os.Stdin.Read(make([]byte, 1))
}
