"""A pod whose containers never stay: they leak, exit and are killed, several at a time; and a store that fails."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localpod.pod import LocalPod
from tests.e2e.sidecar_run import wait_until
from tests.s3_servers import scripted
from tests.s3_servers.scripted import Answer, Received

MIB = 1 << 20
LIMIT_BYTES = 48 * MIB
END_WITHIN_S = 240.0  # the kernel may thrash for two minutes before it kills
SEEN_WITHIN_S = 120.0
SIGNALS = {"exit": signal.SIGTERM, "crash": signal.SIGINT, "kill": signal.SIGKILL, "leak": signal.SIGUSR1}

Event = dict[str, Any]


class Log:
    """A sidecar's log as it grows, each line read once. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._offset = 0
        self._events: list[Event] = []

    def events(self, *names: str) -> list[Event]:
        """The events of these names so far."""
        with self._lock:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._offset += len(whole)
            self._events += [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
            return [event for event in self._events if event["event"] in names]


@dataclass(frozen=True, slots=True)
class Life:
    """One run of a container: who it was, as the pod knows it, and how the test had it end."""

    container: str
    pid: int
    ending: str
    oom_kills: int

    @property
    def mark(self) -> str:
        """What the id of each of its dumps has in it."""
        return f"_{self.container}_pid{self.pid}_"


@dataclass
class Churn:
    """Has containers live and die in several slots at once; each is a container that its policy restarts."""

    pod: LocalPod
    program: Path
    log: Log
    slots: int
    seed: int = 1
    lives: list[Life] = field(default_factory=list)

    def live(self, lives: range, within_s: float) -> None:
        """Have as many more lives as ``lives`` begins with, however long they take, then more within the time.

        ``within_s`` counts from now, and ``lives`` ends where it is enough in any case. Raises what a slot raised.
        """
        before, ends_s = len(self.lives), time.monotonic() + within_s
        faults: list[BaseException] = []

        def is_enough() -> bool:
            lived = len(self.lives) - before
            return lived >= lives.stop or (lived >= lives.start and time.monotonic() >= ends_s)

        def slot(number: int) -> None:
            dice = random.Random(self.seed * 1000 + len(self.lives) * 100 + number)
            try:
                while not faults and not is_enough():
                    self.lives.append(self._live(f"app-{number}", dice))
            except BaseException as fault:  # noqa: BLE001 -- raised below, in the thread that asked
                faults.append(fault)

        threads = [threading.Thread(target=slot, args=(number,)) for number in range(self.slots)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if faults:
            raise faults[0]

    def _live(self, name: str, dice: random.Random) -> Life:
        container = self.pod.start(name, [self.program], memory_limit_bytes=LIMIT_BYTES, env={})
        pid = container.pod_pid
        ending = dice.choices(["leak", "exit", "crash", "kill", "unseen"], [8, 2, 2, 2, 2])[0]
        if ending == "unseen":
            time.sleep(dice.random())
            container.kill()
        else:
            wait_until(f"{name}[{pid}] is watched", lambda: self._is_watched(name, pid), SEEN_WITHIN_S)
            container.process.send_signal(SIGNALS[ending])
        container.process.wait(END_WITHIN_S)
        time.sleep(dice.random() / 20)  # what a runtime takes to remove the cgroup
        container.wait(END_WITHIN_S)
        return Life(container=name, pid=pid, ending=ending, oom_kills=container.oom_kills)

    def _is_watched(self, name: str, pid: int) -> bool:
        return any(event["container"] == name and event["pid"] == pid for event in self.log.events("watching"))


class FlakyStore:
    """A script for a store that fails by the dice, and now and then altogether, while it isn't ``well``."""

    def __init__(self, seed: int, *, failing: float, outage_every_s: float, outage_s: float) -> None:
        """``failing`` is the share of the requests that fail outside of an outage."""
        self.well = False
        self.failures: Counter[str] = Counter()
        self._dice = random.Random(seed)
        self._failing = failing
        self._outage_every_s = outage_every_s
        self._outage_s = outage_s
        self._began_s = time.monotonic()

    def __call__(self, _: Received) -> Answer:
        """Answer one request."""
        since_s = (time.monotonic() - self._began_s) % self._outage_every_s
        if self.well or (since_s > self._outage_s and self._dice.random() >= self._failing):
            return Answer()
        kind = self._dice.choice(["reset", "SlowDown", "InternalError"])
        self.failures[kind] += 1
        return scripted.reset() if kind == "reset" else scripted.error(503 if kind == "SlowDown" else 500, kind)


@contextlib.contextmanager
def now_and_then(act: Callable[[threading.Event], None], every_s: float) -> Iterator[None]:
    """Do something every so often beside the block; ``act`` gets an event that is set when the block ends."""
    ends = threading.Event()

    def repeat() -> None:
        while not ends.wait(every_s):
            act(ends)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
