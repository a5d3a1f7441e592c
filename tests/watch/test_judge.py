"""What a sample makes the watch do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from sidecar.core.trigger import Reason
from sidecar.watch.captures import Captures, Request
from sidecar.watch.judge import Judge
from sidecar.watch.last_moments import LastMoments
from sidecar.watch.life import InHand
from sidecar.watch.scout import Scout
from tests.watch.settings import settings_in
from tests.watch.test_target import PROCESS, new_target, observe


class World:
    """A program whose heap can be read; what is asked for is remembered."""

    def __init__(self) -> None:
        self.heaps = self.endpoints = self
        self.requests: list[Request] = []
        self.found = [object()]
        self.is_known = True

    def of(self, _: object) -> list[object]:
        """As `Heaps.of`."""
        return self.found

    def request(self, request: Request) -> None:
        """As `Captures.request`."""
        self.requests.append(request)

    def keep(self, *_: object, **__: object) -> bool:
        """As `LastMoments.keep`, which is at it already."""
        return False

    def was_looked_at(self, _: object) -> bool:
        """As `Endpoints.was_looked_at`, once it is so."""
        return self.is_known

    def is_without_go(self, _: object) -> bool:
        """As `Endpoints.is_without_go`."""
        return False


def judge_in(world: World, directory: Path) -> Judge:
    """A judge that knows this world alone."""
    return Judge(
        settings_in(directory),
        scout=cast("Scout", world),
        captures=cast("Captures", world),
        last_moments=cast("LastMoments", world),
    )


def test_why_there_is_no_dump_is_known_at_any_moment(tmp_path: Path) -> None:
    """A container that ends before it was looked at, or while held back, wasn't below its threshold all the time."""
    world, target = World(), new_target()
    judge = judge_in(world, tmp_path)
    world.found, world.is_known = [], False
    observe(target, 9.9, 0.5)
    judge.judge(target, freely=True)
    assert target.life.why_no_dump is None
    observe(target, 10.0, 0.95)
    judge.judge(target, freely=True)
    assert "hadn't been looked at" in str(target.life.why_no_dump)
    world.found, world.is_known = [object()], True
    observe(target, 10.1, 0.5)
    judge.judge(target, freely=True)
    assert target.life.why_no_dump is None
    target.state = replace(target.state, dumps_s=(9.0,) * 20)
    observe(target, 11.0, 0.95)
    judge.judge(target, freely=True)
    assert "20 dumps were taken in this hour" in str(target.life.why_no_dump)


@pytest.mark.parametrize(
    ("in_hand", "expected"), [(False, [Reason.THRESHOLD, Reason.ESCALATION]), (True, [Reason.THRESHOLD])]
)
def test_no_dump_for_each_step_where_the_last_moment_is_in_hand(
    tmp_path: Path, *, in_hand: bool, expected: list[Reason]
) -> None:
    """A rise inside of the cooldown is dumped only while nothing is in hand that a kill would leave."""
    world, target = World(), new_target()
    judge = judge_in(world, tmp_path)
    observe(target, 10.0, 0.82)
    judge.judge(target, freely=True)
    target.settle(ok=True, asked_nobody=False, incident=target.incident, now_s=10.1)
    if in_hand:
        target.life.in_hand[PROCESS] = cast("InHand", object())
    observe(target, 12.0, 0.9)
    judge.judge(target, freely=True)
    assert [request.incident.reason for request in world.requests] == expected
