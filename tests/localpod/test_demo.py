from __future__ import annotations

import io
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from demo.narrator import Narrator, SidecarLog, parse_log_line
from demo.stage import Command, plain_stage
from localpod.pprof_top import first_row

ROOT = Path(__file__).resolve().parents[2]


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        """As terminals answer."""
        return True


@pytest.mark.parametrize(
    ("out", "environment", "coloured"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_colour_is_for_terminals_whose_owner_wants_it(
    out: io.StringIO, environment: dict[str, str], *, coloured: bool
) -> None:
    """Escape codes go to a terminal only, and not where NO_COLOR is set to anything."""
    Narrator(out, environment).good("done")
    assert ("\033" in out.getvalue()) is coloured
    assert "done" in out.getvalue()


def test_the_sidecars_lines_are_quoted_and_its_events_remembered() -> None:
    """Messages are told as they are, even a trace that isn't JSON; events can be waited for and counted."""
    lines = (
        b'{"event": "captured", "level": "warning", "message": "saved at 83%"}\n'
        b"Traceback (most recent call last):\n"
        b'{"event": "captured", "level": "warning", "message": "saved at 91%"}\n'
    )
    out = io.StringIO()
    log = SidecarLog(Narrator(out, {}), io.BytesIO(lines))
    log.finish(30)
    assert log.count("captured") == 2
    assert log.wait_for("captured", 0)
    assert not log.wait_for("stopped", 0.01)
    for told in ("saved at 83%", "Traceback", "saved at 91%"):
        assert told in out.getvalue()


@pytest.mark.parametrize("line", ["", "null", "[]", "{}", '{"event": 1}', "{", '"x"'])
def test_no_line_of_a_log_is_lost_or_fatal(line: str) -> None:
    """Whatever isn't an event is told as it is."""
    assert parse_log_line(line) == ("", "error", line)


@pytest.mark.parametrize(
    ("lines", "top"),
    [
        (
            ["Type: inuse_space", " flat  flat%   sum% cum   cum%", " 9MB 90% 90%  9MB 90%  main.a (inline)"],
            "main.a (inline)",
        ),
        (["Type: inuse_space", " flat  flat%   sum% cum   cum%"], None),
        (["main.serializeJSON: no such file"], None),
        ([], None),
    ],
)
def test_the_first_function_of_a_table_is_found(lines: list[str], top: str | None) -> None:
    """Only the row right below the table's head counts."""
    found = first_row("\n".join(lines))
    assert (found and found.function) == top


def test_without_cgroups_the_stage_kills_at_the_limit() -> None:
    """An app that passes the limit dies by SIGKILL, and what the sidecar started dies with the stage."""
    leak = "import signal; x = bytearray(b'1') * (80 << 20); signal.pause()"
    app = Command(argv=(sys.executable, "-c", leak), env={})
    sidecar = Command(argv=("sh", "-c", 'echo "$MEMORY_LIMIT $@" >&2; sleep 600 & wait', "sh"), env={"PATH": "/bin"})
    with plain_stage(app, sidecar, 40 << 20) as stage:
        limit, option, pid = stage.sidecar_log.readline().decode().split()
        assert (limit, option) == (str(40 << 20), "--pid")
        [watcher] = [process for process in psutil.Process().children() if process.name() == "sh"]
        started = watcher.children()
        while stage.usage_bytes() is not None:
            pass
        assert not psutil.pid_exists(int(pid))
        assert stage.how_the_app_ended().startswith("exit code 137")
        stage.app_log.close()
        stage.sidecar_log.close()
    assert psutil.wait_procs([watcher, *started], timeout=60)[1] == []


@pytest.mark.parametrize("arguments", [[], ["--plain"]])
def test_ended_early_nothing_is_left(leak: Path, tmp_path: Path, arguments: list[str]) -> None:
    """SIGTERM while the program leaks ends the demo with 143, and with it every process and file it made."""
    del leak  # so that the demo needn't build it
    demo = subprocess.Popen(
        [sys.executable, "-m", "demo", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with demo:
        assert demo.stdout is not None
        assert any("watching container" in line for line in demo.stdout), demo.communicate()[1]
        started = psutil.Process(demo.pid).children(recursive=True)
        assert "go-memory-leak" in [process.name() for process in started]
        demo.send_signal(signal.SIGTERM)
        _, errors = demo.communicate(timeout=180)
    assert (errors, demo.returncode) == ("demo: ended early; everything it started is gone\n", 128 + signal.SIGTERM)
    assert psutil.wait_procs(started, timeout=60)[1] == []
    assert list(tmp_path.iterdir()) == []
