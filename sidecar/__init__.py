"""Watch the memory of a pod's containers and save a Go heap profile before the OOM killer comes."""

__version__ = "0.1.0"
