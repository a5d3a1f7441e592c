"""The few environment variables of a process that tell how Go's collector was set; nothing else of it is looked at."""

from __future__ import annotations

from pathlib import Path

GO_VARIABLES = ("GOMEMLIMIT", "GOGC", "GODEBUG")


def read_go_environment(proc: Path, pid: int) -> dict[str, str] | None:
    """The Go variables that are set at the start of a process; None where its environment isn't readable."""
    try:
        return parse_go_environment((proc / str(pid) / "environ").read_bytes())
    except OSError:
        return None


def parse_go_environment(block: bytes) -> dict[str, str]:
    r"""Pick the Go variables out of /proc/PID/environ.

    >>> parse_go_environment(b"PATH=/bin\0GOGC=50\0TOKEN=x\0")
    {'GOGC': '50'}
    """
    found = {}
    for entry in block.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name.decode("ascii", "replace") in GO_VARIABLES:
            found[name.decode()] = value.decode("utf-8", "replace")
    return found
