"""Real programs, real kills: what the race sees of them, and of a poller beside them."""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.errors import BenchmarkError
from benchmarks.race import course, http_poller, observer, program
from benchmarks.race.__main__ import command
from benchmarks.race.model import PROGRAMS, Cell, Observed
from benchmarks.race.plan import schedule
from localpod.pod import LocalPod, unavailable
from localpod.toolchain import Toolchain

MIB = 1 << 20
PROGRAM = {one.name: one for one in PROGRAMS}


@pytest.fixture(scope="session")
def racer(go: Toolchain) -> Path:
    """The Go programs, built; the test is skipped where they can't be put into pods."""
    reason = unavailable()
    if reason is not None:
        pytest.skip(f"no pods here: {reason}")
    return program.build(go)


def cell(name: str) -> Cell:
    """A limit that is reached soon."""
    return Cell(program=PROGRAM[name], limit_bytes=64 * MIB, cpu_millicores=None)


def kill(pod: LocalPod, racer: Path, name: str) -> Observed:
    """Let a program grow until its end."""
    with program.running(pod, racer, cell(name), "app") as app:
        app.grow()
        return observer.follow(app)


@pytest.mark.parametrize("name", ["leak-200", "pointers", "doubling", "json", "cache"])
def test_every_program_ends_by_the_oom_killer(pod: LocalPod, racer: Path, name: str) -> None:
    """Each takes what it takes until its limit, and the kernel's mark of its peak is about that limit."""
    observed = kill(pod, racer, name)
    assert observed.oom_killed
    assert 0.9 * 64 * MIB <= observed.peak_bytes <= 65 * MIB  # the kernel itself may overdraw it
    assert observed.ended_at_s is not None
    assert observed.crossed_at_s is None or observed.crossed_at_s <= observed.ended_at_s


def test_a_steady_leak_waits_at_its_floor_and_is_seen_above_half(pod: LocalPod, racer: Path) -> None:
    """It grows on the word alone, and lives between half and all of its limit as long as its rate says, or longer."""
    with program.running(pod, racer, cell("leak-50"), "app") as app:
        assert 0.4 * 64 * MIB <= app.container.cgroup.usage_bytes < 0.6 * 64 * MIB
        app.grow()
        observed = observer.follow(app)
    assert observed.crossed_at_s is not None
    assert observed.above_half_s > 0.3


def test_a_program_that_grows_too_long_is_given_up(pod: LocalPod, racer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A try that hangs costs its deadline and nothing more; it is no kill."""
    monkeypatch.setattr(Cell, "deadline_s", 0.2)
    with program.running(pod, racer, cell("leak-10"), "app") as app:
        observed = observer.follow(app)
    assert not observed.oom_killed
    assert observed.ended_at_s is None


def test_a_try_that_ends_otherwise_is_no_kill(pod: LocalPod, racer: Path) -> None:
    """Who kills the program matters: only the kernel's own count makes a kill of it."""
    with program.running(pod, racer, cell("leak-10"), "app") as app:
        app.container.kill()
        observed = observer.follow(app)
    assert not observed.oom_killed


def test_a_fast_poller_saves_a_slow_leak(racer: Path) -> None:
    """From the program to the share explained; the pod of the tool and all that is in it are gone afterwards."""
    with course.Stable(Path(sys.executable), {}) as stable:
        cgroup = stable.tool("http-100ms").pod.cgroup
        (found,) = course.run(racer, schedule([cell("leak-10")], ["http-100ms"], 1), stable)
    assert found.is_kill
    assert found.saved is not None
    assert 0.05 < found.explained <= 1.2
    assert found.safe_s is not None
    assert not cgroup.memory.exists()


def test_the_sidecar_is_a_tool_like_the_poller(racer: Path) -> None:
    """Its dump of one life is found, of the whole run of ``watch`` only what belongs to that life."""
    attempts = schedule([cell("leak-50")], ["default"], 2)
    with course.Stable(Path(sys.executable), {}) as stable:
        found = list(course.run(racer, attempts, stable))
    assert [one.is_kill for one in found] == [True, True]
    assert all(one.saved is not None and 0.05 < one.explained <= 1.5 for one in found)


def test_a_tool_that_fails_again_and_again_ends_the_race(racer: Path) -> None:
    """A sidecar that doesn't start is no tool that saves nothing: the race says so instead of counting it."""
    with (
        course.Stable(Path(sys.executable), {"CRITICAL": "never"}) as stable,
        pytest.raises(BenchmarkError, match="3 tries in a row"),
    ):
        list(course.run(racer, schedule([cell("leak-50")], ["default"], 3) * 3, stable))


def test_poller_tries_again_at_its_next_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fetch that failed doesn't start the cooldown, one that succeeded does; it ends with the container."""
    usage, folder = tmp_path / "usage", tmp_path / "profiles"
    usage.write_text("80")
    folder.mkdir()
    asked: list[str] = []

    class Heap(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(500 if len(asked) == 1 else 200)
            self.end_headers()
            self.wfile.write(b"profile")
            if len(asked) == 2:
                usage.unlink()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Heap) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        http_poller.poll(usage, 100, f"http://127.0.0.1:{server.server_port}/heap", folder, 0.001)
        server.shutdown()
    assert asked == ["/heap", "/heap"]
    assert [path.read_bytes() for path in folder.iterdir()] == [b"profile"]
    assert [line.split('"')[3] for line in capsys.readouterr().out.splitlines()] == ["ready", "failed", "saved"]


def test_an_unknown_tool_is_a_mistake_of_usage() -> None:
    """It names what there is, and nothing runs."""
    result = CliRunner().invoke(command, ["--tools", "http-1s,fastest"])
    assert result.exit_code == 2
    assert "'fastest' is none of http-1s, http-100ms, default, guard" in result.output
