package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// settings is what the environment asks for.
type settings struct {
	addr         string
	requestBytes int           // what one request takes
	wait         time.Duration // how long a request holds its report before it answers
}

// readSettings reads the environment. The error names the variable, its value and what would be right.
func readSettings() (settings, error) {
	s := settings{addr: ":8080", requestBytes: 100e6, wait: 100 * time.Millisecond}
	if text, is := lookup("ADDR"); is {
		s.addr = text
		if _, err := net.ResolveTCPAddr("tcp", text); err != nil {
			return s, fmt.Errorf("ADDR must be an address like :8080 or 127.0.0.1:8080 (got %q)", text)
		}
	}
	if text, is := lookup("REQUEST_SIZE"); is {
		size, err := parseBytes(text)
		if err != nil {
			return s, fmt.Errorf("REQUEST_SIZE must be a size like 64MiB or 100MB, 16GiB at most (got %q)", text)
		}
		s.requestBytes = size
	}
	if text, is := lookup("REQUEST_WAIT"); is {
		wait, err := time.ParseDuration(text)
		if err != nil || wait < 0 {
			return s, fmt.Errorf("REQUEST_WAIT must be a duration like 100ms or 1s (got %q)", text)
		}
		s.wait = wait
	}
	return s, nil
}

// lookup tells a variable's value, and whether it has one.
func lookup(name string) (string, bool) {
	text := strings.TrimSpace(os.Getenv(name))
	return text, text != ""
}

// The longest suffix first, as "MiB" also ends in "B".
var units = []struct {
	suffix string
	bytes  float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1},
}

// parseBytes reads a size: "64MiB", "100MB" or a number of bytes.
func parseBytes(text string) (int, error) {
	number, scale := text, 1.0
	for _, unit := range units {
		if strings.HasSuffix(text, unit.suffix) {
			number, scale = strings.TrimSpace(strings.TrimSuffix(text, unit.suffix)), unit.bytes
			break
		}
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || !(value*scale >= 1 && value*scale <= 16<<30) {
		return 0, fmt.Errorf("not a size: %q", text)
	}
	return int(value * scale), nil
}
