"""What the sidecar costs and how fast it is, measured on this machine: ``python -m benchmarks`` prints the tables."""
