"""How often the processes of a container are looked at."""

from __future__ import annotations

import time

from sidecar.core.roll_call import Resident
from sidecar.watch.residents import Residents


class Crowd:
    """Counts how often it was looked at, and takes CPU time for each look."""

    def __init__(self, *, cpu_s: float = 0.0) -> None:
        self.looks = 0
        self._cpu_s = cpu_s

    def __call__(self) -> tuple[Resident, ...]:
        self.looks += 1
        ends_s = time.thread_time() + self._cpu_s
        while time.thread_time() < ends_s:
            pass
        return ()


def looks(crowd: Crowd, *, ratio: float | None, kills: int = 0) -> int:
    """How many looks ten calls in a second make, after one long before."""
    residents = Residents()
    residents.look(crowd, 10.0, ratio=0.1, kills=0)
    before = crowd.looks
    for step in range(10):
        residents.look(crowd, 1000 + step * 0.1, ratio=ratio, kills=kills)
    return crowd.looks - before


def test_in_calm_times_once_a_second() -> None:
    """Ten samples, one look; also where there is no limit to be near to."""
    assert looks(Crowd(), ratio=0.3) == 1
    assert looks(Crowd(), ratio=None) == 1


def test_near_the_limit_and_after_a_kill_at_each_sample() -> None:
    """Whoever is largest now may be another one in a tenth of a second."""
    assert looks(Crowd(), ratio=0.6) >= 5  # a few, should a look be slow on this machine
    assert looks(Crowd(), ratio=None, kills=1) >= 5


def test_a_crowd_is_looked_at_less_often() -> None:
    """A look that takes 50 ms of CPU time isn't repeated within five seconds, whatever happens."""
    assert looks(Crowd(cpu_s=0.05), ratio=0.9, kills=1) == 1
