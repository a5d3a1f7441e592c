module oom-heap-dumper/benchmarks/go-service

go 1.21
