"""Makes profiles of raw snapshots in a process of its own (``python -m sidecar.goheap encode``), one at a time.

It takes up to a second and tens of megabytes, which the resident process must not grow by.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sidecar.errors import OomHeapDumperError

# Tens of thousands of stacks under a tiny CPU quota take their time; nobody waits for them.
_WITHIN_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedHeap:
    """A profile that was made.

    ``gc`` is what Go's collector said at that moment, and, by keys that begin with ``profile_``, what the profile's
    stacks have freed so far (`sidecar.goheap.turnover`).
    """

    samples: int
    incomplete: str | None
    gc: Mapping[str, int | None] | None


class HeapEncoder:
    """Runs the encoder. Safe to use from several threads; they wait for each other."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def encode(self, raw: Path, executable: int, out: Path) -> EncodedHeap:
        """Write the profile of a raw snapshot to ``out``; ``executable`` is an open descriptor of the program.

        Raises `OomHeapDumperError` with the reason.
        """
        command = [sys.executable, "-m", "sidecar.goheap", "encode", str(raw), f"/dev/fd/{executable}", str(out)]
        with self._turn:
            try:
                done = subprocess.run(
                    command,
                    capture_output=True,
                    check=False,
                    text=True,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[executable],
                    start_new_session=True,  # a Ctrl-C is the watch's to handle
                    timeout=_WITHIN_S,
                )
            except subprocess.TimeoutExpired as error:
                raise OomHeapDumperError(f"no profile was made within {_WITHIN_S:g} s") from error
            except (OSError, RuntimeError, ValueError) as error:  # no memory, no process; a descriptor that was closed
                raise OomHeapDumperError(f"the encoder can't be run: {error}") from error
        if done.returncode != 0:
            reason = done.stderr.strip().rpartition("\n")[2] or f"the encoder ended with {done.returncode}"
            raise OomHeapDumperError(reason)
        try:
            result = json.loads(done.stdout)
            dropped = int(result["dropped"])
            parts = [result["truncated"], f"{dropped} damaged stacks were left out" if dropped else None]
            turnover = {f"profile_{name}": int(value) for name, value in result["turnover"].items()}
            return EncodedHeap(
                samples=int(result["samples"]),
                incomplete="; ".join(filter(None, parts)) or None,
                gc=None if result["gc"] is None else {**result["gc"], **turnover},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OomHeapDumperError(f"the encoder's answer can't be read: {done.stdout[:200]!r}") from error
