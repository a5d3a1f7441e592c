"""What a dump says of the cause, tried on real programs in real memory cgroups, mostly until the OOM killer comes.

The server of examples/memhog leaks nothing and dies; with the GOMEMLIMIT that ``inject`` gives it, it lives.
"""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from localpod.pod import LocalContainer, LocalPod
from localpod.toolchain import Toolchain
from tests.e2e.sidecar_run import DEADLINE_S, PROJECT, SidecarRun, free_port, manifest_of, wait_until

MIB = 1 << 20
MakeSidecar = Callable[..., SidecarRun]

EXAMPLE = PROJECT / "examples" / "memhog"
LIMIT_BYTES = 512 * MIB
CLIENTS = 4
REQUESTS = 100
# So many are answered before the clients come all at once: what the collector has freed by then is what the verdict
# rests on.
EARLIER_REQUESTS = 20

LEAK = {"LEAK_DELAY": "2s", "ADDR": "127.0.0.1:0"}


@dataclass
class Clients:
    """Asks for reports, on one connection for each client, until enough were asked for or the server is gone."""

    port: int
    answered: int = 0
    refused: int = 0
    _asked: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, *, clients: int, requests: int) -> None:
        """Ask for so many reports in all; returns when each was answered or refused."""
        self.answered = self.refused = self._asked = 0
        with ThreadPoolExecutor(clients) as executor:
            for client in [executor.submit(self._ask, requests) for _ in range(clients)]:
                client.result()

    def is_healthy(self) -> bool:
        """Whether the server answers at all."""
        with contextlib.closing(self._connection()) as connection:
            try:
                return self._get(connection, "/healthz")
            except OSError:
                return False

    def _ask(self, requests: int) -> None:
        with contextlib.closing(self._connection()) as connection:
            while True:
                with self._lock:
                    if self._asked >= requests:
                        return
                    self._asked += 1
                try:
                    fine = self._get(connection, "/report")
                except (OSError, http.client.HTTPException):
                    connection.close()  # the next request opens it again
                    fine = False
                with self._lock:
                    self.answered += fine
                    self.refused += not fine

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)

    @staticmethod
    def _get(connection: http.client.HTTPConnection, path: str) -> bool:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status == http.client.OK


@pytest.fixture(scope="session")
def memhog(go: Toolchain) -> Path:
    """The example, built."""
    return go.build(EXAMPLE)


@pytest.fixture(scope="session")
def elsewhere(go: Toolchain) -> Path:
    """A program whose memory isn't in its heap, built."""
    return go.build(Path(__file__).with_name("elsewhere"))


@pytest.fixture(scope="session")
def keeper(go: Toolchain) -> Path:
    """A program that leaks one in four of its allocations, built."""
    return go.build(Path(__file__).with_name("keeper"))


@pytest.fixture
def clients() -> Clients:
    """Clients of a port that is free."""
    return Clients(free_port())


def start(pod: LocalPod, program: Path, clients: Clients, env: Mapping[str, str]) -> LocalContainer:
    """Start the example; returns when it is healthy."""
    env = {"ADDR": f"127.0.0.1:{clients.port}", **env}
    app = pod.start("app", [program], memory_limit_bytes=LIMIT_BYTES, env=env)
    wait_until("it answers", clients.is_healthy)
    return app


def verdicts(run: SidecarRun) -> list[dict[str, Any]]:
    """The verdict of each dump, oldest first."""
    manifests = [manifest_of(path) for path in run.stored("manifest.json")]
    return [found["verdict"] for found in sorted(manifests, key=lambda one: str(one["time"]))]


def last_words(pod: LocalPod, sidecar: MakeSidecar, argv: list[str | Path], env: Mapping[str, str]) -> dict[str, Any]:
    """Run a program into its limit of 128 MiB; the verdict of its last dump."""
    run = sidecar()
    run.start()
    app = pod.start("app", argv, memory_limit_bytes=128 * MIB, env=env)
    assert app.process.wait(DEADLINE_S) == -9
    run.wait_for("container-ended", ending="oom-killed")
    run.stop()
    return verdicts(run)[-1]


def test_garbage_that_piles_up_is_told_from_a_leak(
    pod: LocalPod, sidecar: MakeSidecar, memhog: Path, clients: Clients, tmp_path: Path
) -> None:
    """One client at a time is served, four kill the server within few requests; the dump and ``get`` say why."""
    run = sidecar()
    run.start()
    app = start(pod, memhog, clients, {})
    run.wait_for("watching")
    clients.run(clients=1, requests=EARLIER_REQUESTS)
    assert (clients.answered, app.oom_kills) == (EARLIER_REQUESTS, 0)
    clients.run(clients=CLIENTS, requests=REQUESTS)
    assert app.process.wait(DEADLINE_S) == -9
    assert app.oom_kills >= 1
    assert clients.answered < REQUESTS / 4
    run.wait_for("container-ended", ending="oom-killed")
    run.stop()
    names = [verdict["name"] for verdict in verdicts(run)]
    # The last moment may come right after a collection, before its garbage was swept: then it names no cause.
    assert "gc-headroom" in names, verdicts(run)
    assert set(names) <= {"gc-headroom", "room-left", "unknown"}, verdicts(run)
    verdict = next(verdict for verdict in verdicts(run) if verdict["name"] == "gc-headroom")
    assert verdict["limit_bytes"] == LIMIT_BYTES
    assert verdict["live_after_gc_bytes"] < 0.8 * LIMIT_BYTES < verdict["gc_goal_bytes"]
    assert verdict["gomemlimit_bytes"] is None
    assert "GOMEMLIMIT unset" in verdict["why"]
    assert "GOMEMLIMIT=4" in verdict["remedy"]
    assert "it leaks besides" in verdict["remedy"]  # by these figures alone it might
    fetched = run.command("get", "--pod", "api-0", "--latest", "--dir", str(tmp_path / "here"))
    said = "gc-headroom: garbage was left to pile up" if names[-1] == "gc-headroom" else f"{names[-1]}: "
    assert fetched.stderr.startswith(said), fetched.stderr


def test_what_inject_sets_lets_it_live(pod: LocalPod, sidecar: MakeSidecar, memhog: Path, clients: Clients) -> None:
    """The same server, limit and clients, with the environment that ``inject`` gives the example's Deployment."""
    run = sidecar()
    run.start()
    app = start(pod, memhog, clients, {"GOMEMLIMIT": injected_gomemlimit()})
    run.wait_for("watching")
    clients.run(clients=CLIENTS, requests=REQUESTS)
    assert clients.answered >= 0.99 * REQUESTS
    assert (app.oom_kills, app.is_running) == (0, True)
    run.stop()
    assert {verdict["name"] for verdict in verdicts(run)} <= {"near-gomemlimit", "heap-growth", "room-left", "unknown"}


def injected_gomemlimit() -> str:
    """What ``oom-heap-dumper inject`` makes of the example's manifest."""
    command = [sys.executable, "-m", "sidecar", "inject", str(EXAMPLE / "deployment.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.returncode == 0, done.stderr
    (app,) = yaml.safe_load(done.stdout)["spec"]["template"]["spec"]["containers"]
    (value,) = (variable["value"] for variable in app["env"] if variable["name"] == "GOMEMLIMIT")
    assert isinstance(value, str)
    return value


def test_a_server_killed_in_its_first_moments_is_not_judged(
    pod: LocalPod, sidecar: MakeSidecar, memhog: Path, clients: Clients
) -> None:
    """Nothing that it ever allocated was freed yet, as with a leak: what can't be told isn't said."""
    run = sidecar()
    run.start()
    app = start(pod, memhog, clients, {"REQUEST_WAIT": "1m"})
    run.wait_for("watching")
    clients.run(clients=CLIENTS + 2, requests=CLIENTS + 2)
    assert app.process.wait(DEADLINE_S) == -9
    run.wait_for("container-ended", ending="oom-killed")
    run.stop()
    assert verdicts(run)[-1]["name"] in {"heap-growth", "live-heap"}


@pytest.mark.parametrize(
    "env",
    [
        {"LEAK_MODE": "steady", "LEAK_RATE": "20MiB/s"},
        {"LEAK_MODE": "steady", "LEAK_RATE": "20MiB/s", "GOGC": "400"},
        {"LEAK_MODE": "steady", "LEAK_RATE": "20MiB/s", "GOGC": "off"},
        {"LEAK_MODE": "exponential"},
        {"LEAK_MODE": "doubling"},
    ],
    ids=lambda env: "-".join(env.values()).replace("/", ""),
)
def test_a_leak_is_never_called_garbage(pod: LocalPod, sidecar: MakeSidecar, leak: Path, env: dict[str, str]) -> None:
    """Also where the collector didn't look for long, and where predecessors of one growing buffer were freed."""
    verdict = last_words(pod, sidecar, [leak], {**LEAK, **env})
    assert verdict["name"] in {"heap-growth", "live-heap"}, verdict


def test_a_leak_under_gomemlimit_is_live(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """The collector has looked again and again before the kill, so there is no doubt about what it found."""
    env = {**LEAK, "LEAK_MODE": "steady", "LEAK_RATE": "20MiB/s", "GOMEMLIMIT": "115MiB"}
    assert last_words(pod, sidecar, [leak], env)["name"] == "live-heap"


def test_a_leak_in_code_that_frees_most_is_not_explained_away(
    pod: LocalPod, sidecar: MakeSidecar, keeper: Path
) -> None:
    """Garbage did pile up beside what it leaks: the last dump may say so, but not without where a leak would show."""
    verdict = last_words(pod, sidecar, [keeper], {})
    assert verdict["name"] in {"gc-headroom", "heap-growth", "live-heap"}, verdict
    assert "the difference to the baseline" in verdict["remedy"]
    assert "a leak" in verdict["why"] or verdict["name"] != "gc-headroom", verdict


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("ADDR", "nope", "an address like :8080"),
        ("REQUEST_SIZE", "much", "a size like"),
        ("REQUEST_SIZE", "1e99", "16GiB at most"),
        ("REQUEST_SIZE", "NaN", "a size like"),
        ("REQUEST_WAIT", "-1s", "a duration like"),
    ],
)
def test_a_wrong_setting_ends_the_example_with_one_line(memhog: Path, name: str, value: str, remedy: str) -> None:
    """Exit code 2, and the line names the variable, its value and what would be right."""
    done = subprocess.run([memhog], env={name: value}, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert name in line
    assert f'"{value}"' in line
    assert remedy in line


@pytest.mark.parametrize(("where", "word"), [("mmap", "cgo, mmap"), ("stacks", "goroutine")])
def test_what_is_no_heap_is_said_to_be_elsewhere(
    pod: LocalPod, sidecar: MakeSidecar, elsewhere: Path, where: str, word: str
) -> None:
    """Memory that the program took past Go's heap: the profile can't explain it, and the dump says so."""
    verdict = last_words(pod, sidecar, [elsewhere, where], {})
    assert verdict["name"] == "outside-the-go-heap", verdict
    assert word in verdict["remedy"]
