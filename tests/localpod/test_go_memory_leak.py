from __future__ import annotations

import gzip
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from localpod.pod import LocalContainer, LocalPod
from localpod.pprof_top import first_row
from localpod.toolchain import Toolchain


@contextmanager
def running(program: Path, **settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The program and where it answers."""
    process = subprocess.Popen(
        [program], env={"ADDR": "127.0.0.1:0", "LEAK_DELAY": "0s", **settings}, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stderr is not None
            yield process, f"http://{process.stderr.readline().split()[3].rstrip(',')}"
        finally:
            process.kill()


def get(url: str) -> bytes:
    """The body of an answer."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        body: bytes = answer.read()
        return body


def held_bytes(url: str) -> int:
    """What the program says it holds."""
    return int(get(url).split()[1])


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("ADDR", "nope", "an address like :8080"),
        ("ADDR", "127.0.0.1:99999", "an address like :8080"),
        ("LEAK_MODE", "fast", "exponential, doubling, steady or off"),
        ("LEAK_DELAY", "5", "a duration like"),
        ("LEAK_DELAY", "-1s", "a duration like"),
        ("LEAK_INTERVAL", "0s", "at least 1ms"),
        ("LEAK_FACTOR", "1", "above 1"),
        ("LEAK_FACTOR", "NaN", "above 1"),
        ("LEAK_RATE", "fast", "a size per second like"),
        ("LEAK_RATE", "0MB/s", "a size per second like"),
        ("LEAK_CHUNK", "1e99", "a size like"),
        ("LEAK_START", "-1", "a size like"),
        ("LEAK_MAX", "64Mib", "a size like"),
        ("BUSY", "maybe", "0 or 1"),
    ],
)
def test_a_bad_setting_is_one_clear_line(leak: Path, name: str, value: str, remedy: str) -> None:
    """The program ends with 2 and one line that tells the variable, what is right, and the value."""
    done = subprocess.run([leak], env={name: value}, capture_output=True, check=False, text=True, timeout=30)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"go-memory-leak: {name} must be ")
    assert remedy in line
    assert line.endswith(f'(got "{value}")')


@pytest.mark.parametrize("mode", ["exponential", "doubling", "steady"])
def test_the_leak_grows_to_its_end(leak: Path, mode: str) -> None:
    """Each mode reaches LEAK_MAX, stays there, and the memory is the process's own."""
    settings = {"LEAK_MODE": mode, "LEAK_INTERVAL": "1ms", "LEAK_RATE": "500MB/s", "LEAK_MAX": "48MiB"}
    with running(leak, **settings) as (process, url):
        deadline_s = time.monotonic() + 30
        while held_bytes(url) < 48 << 20:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        status = Path(f"/proc/{process.pid}/status").read_text()
        anonymous_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))
        assert anonymous_kib > 48 << 10
        assert held_bytes(url) == 48 << 20


def test_without_a_leak_the_program_is_healthy_and_ends_when_told(leak: Path) -> None:
    """With LEAK_MODE=off nothing is held, profiles are served, and SIGTERM ends it with 0."""
    with running(leak, LEAK_MODE="off", BUSY="1") as (process, url):
        assert held_bytes(url) == 0
        assert gzip.decompress(get(f"{url}/debug/pprof/heap"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_the_profile_of_a_leak_that_is_killed_names_its_function(
    pod: LocalPod, leak: Path, go: Toolchain, tmp_path: Path
) -> None:
    """Under a limit the default leak ends by the OOM killer; a heap profile after a collection names serializeJSON."""
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        app = pod.start(
            "app",
            [leak],
            memory_limit_bytes=96 << 20,
            env={"ADDR": "127.0.0.1:0", "LEAK_DELAY": "0s", "LEAK_START": "24MiB", "LEAK_INTERVAL": "150ms"},
            uid=65532,
            gid=65532,
            stderr=stderr,
        )
    profile = tmp_path / "heap.pb.gz"
    profile.write_bytes(_profile_at(app, 48 << 20, log))
    assert (app.wait(60), app.oom_kills) == (-9, 1)
    top = subprocess.run([go.pprof(), "-top", profile], capture_output=True, check=True, text=True).stdout
    first = first_row(top)
    assert first is not None
    assert first.function == "main.serializeJSON"
    assert first.flat_percent > 90


def _profile_at(app: LocalContainer, usage_bytes: int, log: Path) -> bytes:
    while app.cgroup.usage_bytes < usage_bytes:
        assert app.is_running
        time.sleep(0.005)
    address = log.read_text().split()[3].rstrip(",")
    return get(f"http://{address}/debug/pprof/heap?gc=1")
