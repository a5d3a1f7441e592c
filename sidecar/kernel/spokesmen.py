"""Which processes of a container are asked first for what they all share. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.core.model import Process


def by_user(processes: Iterable[Process]) -> list[Process]:
    """The first process of each user, then the others, both in the order given: our rights differ with the user."""
    given = tuple(processes)
    firsts = {(process.uid, process.gid): process for process in reversed(given)}
    return sorted(given, key=lambda process: process is not firsts[process.uid, process.gid])
