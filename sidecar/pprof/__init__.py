"""Talks to ``net/http/pprof`` of Go programs over HTTP: finds the port that is theirs, and fetches profiles."""

from sidecar.pprof.answers import Refusal
from sidecar.pprof.client import PprofClient
from sidecar.pprof.connect import connect

__all__ = ["PprofClient", "Refusal", "connect"]
