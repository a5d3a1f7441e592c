module example.org/go-memory-leak

go 1.21
