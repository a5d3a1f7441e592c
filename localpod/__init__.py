"""A pod without a cluster: Go programs, memory cgroups, a shared PID namespace and an S3 store, all on this machine.

The demo, the tests and the benchmarks stand on it; the sidecar doesn't know it.
"""
