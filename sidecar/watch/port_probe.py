"""Asks the ports that may be one process's for pprof, in turn, and those that refused again later and later."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sidecar.core.backoff import Retry
from sidecar.kernel import proc_files, residents
from sidecar.kernel.sockets import ListeningSocket
from sidecar.pprof import PprofClient, Refusal, connect
from sidecar.settings import PprofSettings
from sidecar.watch.port_owner import PortOwner

# How long one process may keep a look waiting; ports that keep silent take seconds each.
_PROBE_BUDGET_S = 3.0
# Linux's most for one argument. Longer ones say whose a port is only as far as they are equal.
_MOST_ARGUMENTS_BYTES = 1 << 17
new_retry = partial(Retry, first_s=2.0, last_s=600.0)
"""For whatever fails with a process and its ports."""


@dataclass(slots=True)
class _Refused:
    reason: str = ""
    retry: Retry = field(default_factory=new_retry)


class PortProbe:
    """One process and the ports that refused. For one thread at a time, but for `reasons` and `forget_refusals`."""

    def __init__(self, proc: Path, pid: int, settings: PprofSettings) -> None:
        """To be made when the process was just seen: another one that gets its number later is another owner."""
        self._proc = proc
        self._pid = pid
        self._settings = settings
        self._refused: dict[int, _Refused] = {}
        seen = residents.look_at(proc, pid)
        self._start_ticks = seen.start_ticks if seen is not None else None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why ports refused, for people."""
        return tuple(refused.reason for refused in tuple(self._refused.values()))

    def forget_refusals(self) -> None:
        """Ask every port again."""
        for refused in tuple(self._refused.values()):
            refused.retry.hasten()

    def command_line(self) -> bytes:
        """The arguments of the process as /proc has them, the beginning of very long ones; empty if it has ended."""
        try:
            return proc_files.read_start(self._proc / str(self._pid) / "cmdline", _MOST_ARGUMENTS_BYTES)
        except OSError:
            return b""

    def ask(
        self, candidates: Iterable[ListeningSocket], held: Mapping[int, int], now_s: float
    ) -> tuple[ListeningSocket, PprofClient] | None:
        """Ask those that are due until one answers, which forgets the refusals, or until none does.

        ``held`` are the descriptors, by inode, of those that are the process's for certain. Raises `TimeoutError` if
        there was no time for all of them: the rest is to be asked soon, before anything that refused already.
        """
        wanted = self._settings.ports
        inodes = {socket.inode: socket for socket in candidates}
        self._refused = {inode: refused for inode, refused in self._refused.items() if inode in inodes}
        ends_s = time.monotonic() + _PROBE_BUDGET_S
        for socket in sorted(inodes.values(), key=lambda s: wanted.index(s.port) if s.port in wanted else s.port):
            refused = self._refused.get(socket.inode)
            if (wanted and socket.port not in wanted) or (refused is not None and not refused.retry.is_due(now_s)):
                continue
            if time.monotonic() >= ends_s:
                raise TimeoutError
            answer = self._connect(socket, held.get(socket.inode))
            if isinstance(answer, PprofClient):
                self._refused = {}
                return socket, answer
            refused = self._refused.setdefault(socket.inode, _Refused())
            refused.reason = answer.reason
            refused.retry.note_failure(time.monotonic())
        return None

    def _connect(self, socket: ListeningSocket, descriptor: int | None) -> PprofClient | Refusal:
        owner = PortOwner(
            proc=self._proc,
            pid=self._pid,
            start_ticks=self._start_ticks,
            inode=socket.inode,
            descriptor=descriptor,
        )
        return connect(
            socket.dial_hosts,
            socket.port,
            self.command_line(),
            self._settings,
            owner_proven=owner.is_proven,
            owner=owner,
        )
