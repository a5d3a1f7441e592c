"""Reads one program's heap from its memory in every way that counts: ``python -m benchmarks.snapshot_try``.

It is a container of the benchmark's pod, so that its CPU can be limited, and prints what it measured as a line of JSON.
The program must have no stacks yet.
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sidecar.goheap import HeapReader, prepare

_PROC = Path("/proc")
_HTTP_WITHIN_S = 60.0
_ENCODE_WITHIN_S = 300.0
_ENCODE = "encode"

# What a try tells of itself; the kernel counts them in kB (proc(5)).
_RESIDENT = "VmRSS"
_PEAK = "VmHWM"


def main(arguments: list[str] | None = None) -> int:
    """Make one try."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == [_ENCODE]:
        return _encode_here(words)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.snapshot_try")
    parser.add_argument("--pid", type=int, required=True, help="the program, as this PID namespace knows it")
    parser.add_argument("--address", required=True, help="where it takes orders, as HOST:PORT")
    parser.add_argument("--stacks", type=int, required=True, help="how many it is to have in the end")
    parser.add_argument("--repeats", type=int, required=True, help="how often to do what can be repeated")
    parser.add_argument("--rest-s", type=float, required=True, help="seconds between these, for a CPU quota to recover")
    parser.add_argument("--folder", type=Path, required=True, help="where files may be written")
    parser.add_argument("--encode", action="store_true", help="make a profile of the last one as well")
    given = parser.parse_args(words)

    def rest() -> None:
        time.sleep(given.rest_s)

    def more(stacks: int) -> None:
        _order_more(given.address, stacks)
        rest()

    new = given.stacks // 10
    raw = given.folder / "heap.raw"
    with prepare(_PROC, given.pid) as reader:
        more(given.stacks - new)
        before_bytes = _reset_peak()
        none_known_s = _timed(lambda: _write(reader, raw))
        growth_bytes, kept_bytes = _status(_PEAK) - before_bytes, _status(_RESIDENT) - before_bytes
        more(new)
        some_new_s = _timed(lambda: _write(reader, raw))
        all_known_s, refresh_s, known_growth_bytes, known_kept_bytes = [], [], [], []
        for _ in range(given.repeats):
            rest()
            before_bytes = _reset_peak()
            all_known_s.append(_timed(lambda: _write(reader, raw)))
            known_growth_bytes.append(_status(_PEAK) - before_bytes)
            known_kept_bytes.append(_status(_RESIDENT) - before_bytes)
            rest()
            refresh_s.append(_timed(reader.refresh))
        rest()
        found = {
            "buckets": reader.known_buckets,
            "raw_bytes": raw.stat().st_size,
            "none_known_s": none_known_s,
            "some_new_s": some_new_s,
            "all_known_s": all_known_s,
            "refresh_s": refresh_s,
            "prepare_s": _timed(lambda: prepare(_PROC, given.pid).close()),
            "first_growth_bytes": growth_bytes,
            "first_kept_bytes": kept_bytes,
            "growth_bytes": max(known_growth_bytes),
            "kept_bytes": known_kept_bytes[-1],
            "encoding": _encode(raw, reader.executable, given.folder / "heap.pb.gz") if given.encode else None,
        }
    print(json.dumps(found), flush=True)
    return 0


def _timed(action: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    action()
    return time.perf_counter() - began_s


def _write(reader: HeapReader, raw: Path) -> None:
    """As the watch keeps a snapshot in hand: a new file, not synced."""
    with raw.open("wb") as file:
        reader.write_snapshot(file)


def _order_more(address: str, stacks: int) -> None:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=_HTTP_WITHIN_S)
    connection.request("GET", f"/more?stacks={stacks}")
    status = connection.getresponse().status
    connection.close()
    if status != http.HTTPStatus.OK:
        raise OSError(f"/more answers HTTP {status}")


def _reset_peak() -> int:
    """Let the kernel count the peak anew (5 in clear_refs, proc(5)); tells what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status(_RESIDENT)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise OSError(f"/proc/self/status has no {name}")


def _encode(raw: Path, executable: int, out: Path) -> dict[str, float]:
    """Make the profile in a process of its own, as the sidecar does."""
    words = [_ENCODE, str(raw), f"/dev/fd/{executable}", str(out)]
    command = [sys.executable, "-m", "benchmarks.snapshot_try", *words]
    began_s = time.perf_counter()
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, pass_fds=[executable], timeout=_ENCODE_WITHIN_S
    )
    took_s = time.perf_counter() - began_s
    encoded, peak = (json.loads(line) for line in done.stdout.splitlines())
    return {
        "samples": encoded["samples"],
        "took_s": took_s,
        "peak_bytes": peak,
    }


def _encode_here(words: list[str]) -> int:
    """``python -m sidecar.goheap encode``, with one more line: the peak of this process, which nobody else can see."""
    from sidecar.goheap.__main__ import main as goheap

    status = goheap(words)
    print(_status(_PEAK), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
