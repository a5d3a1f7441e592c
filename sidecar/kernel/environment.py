"""The few environment variables of a process that tell how Go's collector was set; nothing else of it is looked at."""

from __future__ import annotations

from pathlib import Path

from sidecar.kernel import proc_files

GO_VARIABLES = ("GOMEMLIMIT", "GOGC", "GODEBUG")

# Half of what Linux lets most programs start with. What begins behind it isn't looked for.
_MOST_BYTES = 1 << 20
# A longer value says nothing that any Go reads. We keep it as long as the program runs.
_MOST_VALUE_BYTES = 4096


def read_go_environment(proc: Path, pid: int) -> dict[str, str] | None:
    """The Go variables that are set at the start of a process; None where its environment isn't readable."""
    try:
        block = proc_files.read_start(proc / str(pid) / "environ", _MOST_BYTES)
    except OSError:
        return None
    return parse_go_environment(block[: block.rfind(b"\0") + 1] if len(block) == _MOST_BYTES else block)


def parse_go_environment(block: bytes) -> dict[str, str]:
    r"""Pick the Go variables out of /proc/PID/environ. Of several of a name the first counts, as for Go's runtime.

    >>> parse_go_environment(b"PATH=/bin\0GOGC=50\0TOKEN=x\0")
    {'GOGC': '50'}
    """
    found = {}
    entries = b"\0" + block
    for name in GO_VARIABLES:
        wanted = f"\0{name}=".encode()
        at = entries.find(wanted)
        if at < 0:
            continue
        start = at + len(wanted)
        end = entries.find(b"\0", start, start + _MOST_VALUE_BYTES + 1)
        value = entries[start:] if end < 0 else entries[start:end]
        if len(value) <= _MOST_VALUE_BYTES:
            found[name] = value.decode("utf-8", "replace")
    return found
