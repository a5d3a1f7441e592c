"""What the Go example is told to do in the tests, as its environment. It listens on whatever port is free."""

from __future__ import annotations

CALM = {"ADDR": "127.0.0.1:0", "LEAK_MODE": "off"}

HOVER = {**CALM, "LEAK_MODE": "steady", "LEAK_RATE": "40MiB/s", "LEAK_DELAY": "2s", "LEAK_MAX": "52MiB", "GOGC": "10"}
"""It stays at its size above the threshold of a limit of 64 MiB instead of running into it."""
