from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import harm_gauges, harm_table, service
from benchmarks.errors import BenchmarkError
from benchmarks.gauges import cpu_s
from benchmarks.harm import CONDITIONS, NOBODY, Condition, Turn
from benchmarks.harm_gauges import Load, Stall
from benchmarks.service import Service
from localpod.pod import LocalPod
from localpod.toolchain import Toolchain

_PYTHON = Path(sys.executable)


def turn(condition: Condition, number: int, *, per_s: float, cpu_millicores: int | None = None) -> Turn:
    """A turn whose latencies are as its throughput: ten times the requests, a tenth of the time."""
    load = Load(requests=100, per_s=per_s, p50_s=1 / per_s, p99_s=2 / per_s, most_s=3 / per_s)
    return Turn(
        condition=condition,
        cpu_millicores=cpu_millicores,
        number=number,
        latency=load,
        throughput=load,
        stall=None if cpu_millicores else Stall(longest_s=0.004, lost_ratio=0.01),
        captures_per_s=None,
        capture_s=None,
        cpu_ratio=None,
    )


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, within a deadline."""
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s, "waited for 30 s in vain"
        time.sleep(0.001)


def until_it_has_worked(pid: int) -> None:
    """Wait until a process has used some CPU time from now on."""
    enough_s = cpu_s(pid) + 0.05
    until(lambda: cpu_s(pid) >= enough_s)


def digests(pid: int) -> dict[str, str]:
    """Each piece of a process's memory that it may write to, and a hash of its content."""
    found = {}
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for extent, rights in (line.split()[:2] for line in maps):
            if rights.startswith("rw"):
                start, end = (int(address, 16) for address in extent.split("-"))
                memory.seek(start)
                found[extent] = hashlib.sha256(memory.read(end - start)).hexdigest()
    return found


def cells(table_row: tuple[str, ...]) -> list[str]:
    """The medians of a row."""
    return [cell.partition(" (")[0] for cell in table_row[1:]]


def test_each_round_is_held_against_its_own() -> None:
    """A machine that is twice as fast in one round changes no ratio; a round without a base is left out."""
    base = [turn(NOBODY, 0, per_s=100), turn(NOBODY, 1, per_s=200)]
    others = [turn(CONDITIONS[2], number, per_s=per_s) for number, per_s in ((0, 90), (1, 180), (2, 5))]
    assert harm_table.ratios(others, base, lambda one: one.throughput.per_s) == [0.9, 0.9]


def test_table_has_a_row_for_each_condition_of_each_quota_in_their_order() -> None:
    """Quotas aren't mixed, the order of the turns within a round doesn't matter after the first, 1 is "no sidecar"."""
    slow = CONDITIONS[2]
    found = [
        *(turn(NOBODY, 0, per_s=100), turn(slow, 0, per_s=50)),
        *(turn(slow, 1, per_s=50), turn(NOBODY, 1, per_s=100)),
        *(turn(NOBODY, 0, per_s=10, cpu_millicores=250), turn(slow, 0, per_s=10, cpu_millicores=250)),
    ]
    table = harm_table.table(found)
    assert [row[0] for row in table.rows] == [
        *("none, no sidecar", f"none, {slow.name}", "250m, no sidecar", f"250m, {slow.name}")
    ]
    assert cells(table.rows[0])[:5] == ["1.00", "1.00", "1.00", "4.00, 4.00", "10.00, 10.00"]
    assert cells(table.rows[1])[:3] == ["0.50", "2.00", "2.00"]
    assert cells(table.rows[3])[:5] == ["1.00", "1.00", "1.00", "-", "-"]
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert any("1 is 10 requests/s" in note for note in table.notes)


@pytest.mark.parametrize("said", [{"requests": 99, "failures": 1}, {"requests": 0, "failures": 0}])
def test_load_that_failed_is_no_measurement(said: dict[str, float]) -> None:
    """A failed request, or none at all, ends the benchmark instead of making an answer look fast."""
    times = dict.fromkeys(("per_s", "p50_s", "p99_s", "most_s"), 0.1)
    with pytest.raises(BenchmarkError, match="requests to the app failed"):
        harm_gauges.read_load(json.dumps(said | times))


@pytest.fixture
def app(pod: LocalPod, go: Toolchain) -> Service:
    """The benchmarks' service with something to do."""
    return service.start(pod, service.build(go), "app", memory_limit_bytes=256 << 20, stacks=64, records=500)


@pytest.fixture
def stopped(app: Service) -> Iterator[list[float]]:
    """Stops the app once in the middle of its work; after the test's own action the list holds for how many seconds."""
    lengths: list[float] = []

    def stop() -> None:
        until_it_has_worked(app.container.pid)
        os.kill(app.container.pid, signal.SIGSTOP)
        until(lambda: _state(app.container.pid) == "T")
        began_s = time.monotonic()
        time.sleep(0.1)
        lengths.append(time.monotonic() - began_s)
        os.kill(app.container.pid, signal.SIGCONT)

    thread = threading.Thread(target=stop)
    thread.start()
    yield lengths
    thread.join()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_stall_tells_how_long_the_app_was_stopped(app: Service, stopped: list[float]) -> None:
    """A stop from outside is seen whole, as the longest stall and in what was lost."""
    window_s = 2.0
    found = harm_gauges.stall(app, window_s)
    assert stopped
    assert found.longest_s >= stopped[0]
    assert found.lost_ratio * window_s >= stopped[0] * 0.9  # the window's own end is a little late


def test_even_pace_charges_a_stop_to_all_requests_that_were_due(
    app: Service, go: Toolchain, stopped: list[float]
) -> None:
    """Latency runs from when a request was due: those due during a stop are late, not missing."""
    client = replace(harm_gauges.build(go), warm_up_s=0.0)
    found = client.ask_evenly(app, 400.0, 2.0)
    assert stopped
    assert found.requests == 800
    assert found.p99_s >= stopped[0] * 0.5
    assert found.most_s >= stopped[0]


def test_closed_loop_asks_as_fast_as_it_is_answered(app: Service, go: Toolchain) -> None:
    """Requests and their rate agree with the window, and latencies are in order."""
    found = harm_gauges.build(go).ask_closely(app, 0.5)
    assert found.requests > 4
    assert found.requests / found.per_s >= 0.5
    assert 0 < found.p50_s <= found.p99_s <= found.most_s


@pytest.mark.parametrize("way", ["memory", "http", "gc"])
def test_captures_go_on_until_they_are_ended(pod: LocalPod, app: Service, way: str) -> None:
    """Each way captures this app again and again, and tells of each capture how long it took."""
    with harm_gauges.capturing(pod, _PYTHON, app, way=way, interval_s=0.001) as reader:
        until_it_has_worked(reader.pid)
        took_s = reader.end()
    assert len(took_s) > 1
    assert all(one_s > 0 for one_s in took_s)
    assert app.container.is_running


def test_reading_from_memory_changes_nothing_in_it(pod: LocalPod, go: Toolchain) -> None:
    """Of a program that is stopped, and so can't change anything itself, every byte is the same after a capture."""
    app = service.start(pod, service.build(go), "app", memory_limit_bytes=256 << 20, records=500)
    os.kill(app.container.pid, signal.SIGSTOP)
    until(lambda: _state(app.container.pid) == "T")
    before = digests(app.container.pid)
    with harm_gauges.capturing(pod, _PYTHON, app, way="memory", interval_s=0.001) as reader:
        until_it_has_worked(reader.pid)
        assert reader.end()
    assert _state(app.container.pid) == "T"
    assert digests(app.container.pid) == before
    assert before


def test_reader_that_cannot_begin_is_an_error(pod: LocalPod, app: Service) -> None:
    """A reader that ends at once ends the benchmark, with no wait for what can't come."""
    with (
        pytest.raises(BenchmarkError, match="ended before it said that it is ready"),
        harm_gauges.capturing(pod, _PYTHON, app, way="sideways", interval_s=0.1),
    ):
        pass
