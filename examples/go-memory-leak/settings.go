package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

const mebibyte = 1 << 20

// settings is what the environment asks for. Every zero value means the same as the variable left out.
type settings struct {
	addr       string
	mode       string        // exponential, doubling, steady or off
	delay      time.Duration // calm before the leak begins
	interval   time.Duration // pause between two rounds
	factor     float64       // what a round holds, as a multiple of what the last one held
	bytesPerS  float64       // pace of the steady mode
	chunkBytes int           // size of one document
	startBytes int           // what the first round holds
	maxBytes   int           // the leak ends here; 0 for never
	busy       bool          // burn every CPU as well
}

// What each mode takes where the environment is silent. The exponential pace doubles the memory every 1.4 s and needs
// half a second from 80 % of a limit to the limit.
var pace = map[string]struct {
	factor   float64
	interval time.Duration
}{
	"exponential": {factor: 1.05, interval: 100 * time.Millisecond},
	"doubling":    {factor: 2, interval: time.Second},
	"steady":      {factor: 1, interval: 10 * time.Millisecond},
	"off":         {factor: 1, interval: time.Second},
}

// readSettings reads the environment. The error names the variable, its value and what would be right.
func readSettings() (settings, error) {
	var s settings
	s.addr = lookup("ADDR", ":8080")
	if _, err := net.ResolveTCPAddr("tcp", s.addr); err != nil {
		return s, fmt.Errorf("ADDR must be an address like :8080 or 127.0.0.1:8080 (got %q)", s.addr)
	}
	s.mode = lookup("LEAK_MODE", "exponential")
	preset, known := pace[s.mode]
	if !known {
		return s, fmt.Errorf("LEAK_MODE must be exponential, doubling, steady or off (got %q)", s.mode)
	}
	var rate, chunk, start, limit int
	problem := first(
		read("LEAK_DELAY", 5*time.Second, parseDuration, &s.delay),
		read("LEAK_INTERVAL", preset.interval, parsePause, &s.interval),
		read("LEAK_FACTOR", preset.factor, parseFactor, &s.factor),
		read("LEAK_RATE", 20*mebibyte, parseRate, &rate),
		read("LEAK_CHUNK", mebibyte/4, parseBytes, &chunk),
		read("LEAK_START", 4*mebibyte, parseBytes, &start),
		read("LEAK_MAX", 0, parseBytes, &limit),
		read("BUSY", false, parseBool, &s.busy),
	)
	s.bytesPerS, s.chunkBytes, s.startBytes, s.maxBytes = float64(rate), chunk, start, limit
	return s, problem
}

func lookup(name, otherwise string) string {
	if text := strings.TrimSpace(os.Getenv(name)); text != "" {
		return text
	}
	return otherwise
}

func read[T any](name string, otherwise T, parse func(string) (T, error), into *T) error {
	text := lookup(name, "")
	if text == "" {
		*into = otherwise
		return nil
	}
	value, err := parse(text)
	if err != nil {
		return fmt.Errorf("%s must be %w (got %q)", name, err, text)
	}
	*into = value
	return nil
}

func first(problems ...error) error {
	for _, problem := range problems {
		if problem != nil {
			return problem
		}
	}
	return nil
}

func parseDuration(text string) (time.Duration, error) {
	value, err := time.ParseDuration(text)
	if err != nil || value < 0 {
		return 0, fmt.Errorf("a duration like 500ms or 5s")
	}
	return value, nil
}

func parsePause(text string) (time.Duration, error) {
	value, err := time.ParseDuration(text)
	if err != nil || value < time.Millisecond {
		return 0, fmt.Errorf("a duration of at least 1ms")
	}
	return value, nil
}

func parseFactor(text string) (float64, error) {
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || !(value > 1 && value <= 10) {
		return 0, fmt.Errorf("a number above 1 and up to 10")
	}
	return value, nil
}

func parseBool(text string) (bool, error) {
	value, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("0 or 1")
	}
	return value, nil
}

// parseRate reads a size per second: "50MB/s", "20MiB/s" or "20MiB".
func parseRate(text string) (int, error) {
	value, err := parseBytes(strings.TrimSuffix(text, "/s"))
	if err != nil {
		return 0, fmt.Errorf("a size per second like 50MB/s or 20MiB/s")
	}
	return value, nil
}

// The longest suffix first, as "MiB" also ends in "B".
var units = []struct {
	suffix string
	bytes  float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30},
	{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9},
	{"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"B", 1},
}

// parseBytes reads a size: "64MiB", "64Mi", "64MB", "64M" or a number of bytes. It is at least 1 byte, at most 1 TiB.
func parseBytes(text string) (int, error) {
	number, scale := text, 1.0
	for _, unit := range units {
		if strings.HasSuffix(text, unit.suffix) {
			number, scale = strings.TrimSpace(strings.TrimSuffix(text, unit.suffix)), unit.bytes
			break
		}
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || !(value*scale >= 1 && value*scale <= 1<<40) {
		return 0, fmt.Errorf("a size like 64MiB or 64MB")
	}
	return int(value * scale), nil
}
