module oom-heap-dumper/benchmarks/go-stacks

go 1.21
