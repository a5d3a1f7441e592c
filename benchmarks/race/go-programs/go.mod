module oom-heap-dumper/benchmarks/race/go-programs

go 1.21
