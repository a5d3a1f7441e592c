from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import snapshots
from benchmarks.errors import BenchmarkError
from benchmarks.ground import QUICK, Ground
from localpod.pod import LocalPod
from localpod.toolchain import Toolchain

_SAID = {
    "buckets": 1010,
    "raw_bytes": 3 << 20,
    "prepare_s": 0.02,
    "none_known_s": 0.03,
    "some_new_s": 0.01,
    "all_known_s": [0.001, 0.002],
    "refresh_s": [0.001, 0.001],
    "first_growth_bytes": 3 << 20,
    "first_kept_bytes": -4096,
    "growth_bytes": 2 << 20,
    "kept_bytes": 0,
    "encoding": {"samples": 1005, "took_s": 0.5, "peak_bytes": 30 << 20},
}


def test_what_a_try_says_becomes_a_row() -> None:
    """Repeated figures count each for themselves, and a counter that lags behind makes no negative size."""
    one = snapshots.read_try(json.dumps(_SAID), stacks=1000, cpu_millicores=100)
    other = snapshots.read_try(json.dumps(_SAID | {"encoding": None}), stacks=1000, cpu_millicores=100)
    table = snapshots.table([one, other])
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert len(table.rows) == 1
    assert row["program"] == "1000 stacks, quota 100m"
    assert row["tries"] == "2"
    assert row["all known ms"] == "1.5 / 2.0 / 2.0"
    assert row["adds, stays MiB"] == "2.0, 0.0"
    assert row["none known adds, stays MiB"] == "3.0, 0.0"
    assert row["encode s"] == "0.50 / 0.50 / 0.50"
    assert row["its peak MiB"] == "30.0"


@pytest.mark.parametrize(
    "short", [{"buckets": 999}, {"encoding": {"samples": 999, "took_s": 0.5, "peak_bytes": 30 << 20}}]
)
def test_a_try_that_missed_stacks_is_no_measurement(short: dict[str, object]) -> None:
    """A reader that is fast because it reads too little ends the benchmark."""
    with pytest.raises(BenchmarkError, match="of 1000 stacks"):
        snapshots.read_try(json.dumps(_SAID | short), stacks=1000, cpu_millicores=None)


def test_a_real_program_has_as_many_stacks_as_it_was_told(
    pod: LocalPod, go: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole run: every stack is read and encoded, and there are few others."""
    del pod  # only to skip where there is none: the benchmark makes its own
    sizes = snapshots.Sizes(stacks=(1000,), tries=1, slow_tries=0, slow_encodings=0, repeats=2)
    monkeypatch.setattr(snapshots, "_QUICK", sizes)
    ground = Ground(python=Path(sys.executable), service=Path(go.go), settings={}, effort=QUICK)
    (found,) = snapshots.measure(ground)
    assert 1000 <= found.buckets < 2000
    assert len(found.all_known_s) == len(found.refresh_s) == 2
    assert found.encoding is not None
    assert 1000 <= found.encoding.samples <= found.buckets
    assert found.raw_bytes > 1000 * 100
