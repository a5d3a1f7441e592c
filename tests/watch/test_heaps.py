"""Reading heaps side by side: what is copied of the programs counts against the sidecar's own limit."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import cast

from sidecar.core.output import Output
from sidecar.goheap import HeapReader
from sidecar.watch.heaps import ReadableHeap
from tests.watch.test_last_moments import PROCESS


class Reader:
    """A program whose copying takes as long as the test lets it; ``most`` is how many were copied at once."""

    executable = 0
    lock = threading.Lock()
    running = most = 0

    def write_snapshot(self, file: Output) -> int:
        """As `HeapReader.write_snapshot`."""
        with Reader.lock:
            Reader.running += 1
            Reader.most = max(Reader.most, Reader.running)
        threading.Event().wait(0.05)  # long enough for the others to come in, if they may
        file.write(b"heap")
        with Reader.lock:
            Reader.running -= 1
        return 4


def test_one_program_s_memory_is_copied_at_a_time() -> None:
    """Four containers that cross their thresholds together don't take the sidecar over its limit."""
    heaps = [ReadableHeap(replace(PROCESS, pid=pid), cast("HeapReader", Reader()), None) for pid in range(4)]
    with ThreadPoolExecutor(len(heaps)) as executor:
        assert list(executor.map(lambda heap: heap.write_snapshot(io.BytesIO()), heaps)) == [4] * 4
    assert Reader.most == 1
