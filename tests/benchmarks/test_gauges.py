from __future__ import annotations

import os
import time

import psutil

from benchmarks.gauges import cpu_s, process_use


def test_cpu_clock_of_a_process_is_its_own() -> None:
    """The clock made from a PID agrees with what the process reads of itself, before and after some work."""
    before = time.process_time()
    seen = cpu_s(os.getpid())
    sum(number * number for number in range(100_000))
    assert before <= seen <= time.process_time()
    assert cpu_s(os.getpid()) > seen


def test_figures_of_a_process_are_those_of_the_kernel() -> None:
    """Bytes, not kibibytes; the peak is no less than what is resident, which is more than what is anonymous."""
    found = process_use(os.getpid())
    rss = psutil.Process().memory_info().rss
    assert abs(found.rss_bytes - rss) < rss / 10
    assert found.anonymous_bytes < found.rss_bytes <= found.peak_rss_bytes
    assert 0 < found.pss_bytes <= found.rss_bytes
    assert found.threads >= 1
    assert found.fds >= 3
