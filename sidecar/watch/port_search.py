"""Asks the processes of the pod for pprof, those that hold a listening socket side by side."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sidecar import logs
from sidecar.core.model import Process
from sidecar.errors import NotPermittedError
from sidecar.kernel import held_sockets
from sidecar.kernel.environment import read_go_environment
from sidecar.kernel.sockets import ListeningSocket
from sidecar.watch.candidates import Answering, Candidate
from sidecar.watch.faults import Faults

# Without the right to see whose sockets they are, each port is asked for each process it could belong to.
_MAX_GUESSED_PROCESSES = 8
_PROBES_AT_ONCE = 8

# A process, those of the pod's listening sockets that it holds, and the descriptors it has them by.
_Held = tuple[Candidate, list[ListeningSocket], dict[int, int]]


def find_shared(listening: Iterable[ListeningSocket], held: Mapping[Process, Collection[int]]) -> frozenset[int]:
    """The inodes of sockets at whose address another process may answer than the one that was seen to hold it.

    One socket may be held by several processes, and several sockets may be bound to one address (SO_REUSEPORT), or to
    overlapping ones. ``held`` are the inodes that each process holds; whose the others are isn't known.
    """
    holders: dict[int, set[Process]] = {}
    for process, inodes in held.items():
        for inode in inodes:
            holders.setdefault(inode, set()).add(process)
    by_address: dict[tuple[str, int], list[int]] = {}
    for socket in listening:
        for host in socket.dial_hosts:
            by_address.setdefault((host, socket.port), []).append(socket.inode)
    shared = {inode for inode, processes in holders.items() if len(processes) > 1}
    for inodes in by_address.values():
        owners = [holders.get(inode, set()) for inode in inodes]
        if any(owners) and any(each != owners[0] for each in owners):
            shared.update(inodes)
    return frozenset(shared)


class PortSearch:
    """For one thread; what it finds is set in the candidates, and one that causes a fault is asked again later."""

    def __init__(self, proc: Path, faults: Faults) -> None:
        self._proc = proc
        self._faults = faults
        self._turns = 0
        self._is_complete = True

    def ask(
        self,
        lacking: list[Candidate],
        answering: list[Candidate],
        listening: tuple[ListeningSocket, ...],
        now_s: float,
    ) -> bool:
        """Ask those without an endpoint; False if some are to be asked again soon.

        Where several processes may answer nobody is asked: which of them accepts a connection is the kernel's choice.
        """
        self._is_complete = True
        self._turns += 1
        held_by = self._find_held(lacking, {socket.inode for socket in listening})
        shared = find_shared(listening, {seen.process: seen.known_inodes for seen in (*lacking, *answering)})
        for seen in (*lacking, *answering):
            seen.shared_ports = tuple(sorted({s.port for s in listening if s.inode in seen.held and s.inode in shared}))
            if seen.endpoint is not None and seen.endpoint.inode in shared:
                seen.drop_endpoint()
                self._is_complete = False
        sole = tuple(socket for socket in listening if socket.inode not in shared)
        self._ask_owners([(seen, [s for s in sole if s.inode in held], held) for seen, held in held_by], now_s)
        guessable = [seen for seen in lacking if seen.unattributable and seen.endpoint is None]
        if guessable:
            owned = frozenset[int]().union(*(seen.known_inodes for seen in (*lacking, *answering)))
            self._guess(guessable, [socket for socket in sole if socket.inode not in owned], now_s)
        return self._is_complete

    def _find_held(self, lacking: list[Candidate], inodes: set[int]) -> list[tuple[Candidate, dict[int, int]]]:
        """The descriptors by which these processes hold sockets, where they hold any and may be seen to."""
        held_by = []
        for seen in lacking:
            seen.held = frozenset()
            try:
                held = held_sockets.find_descriptors(self._proc, seen.process.pid, inodes)
            except NotPermittedError:
                seen.unattributable = True
                continue
            except Exception:  # noqa: BLE001 -- one odd process stops nothing else
                self._postpone(seen)
                continue
            seen.unattributable = False
            seen.held = frozenset(held)
            if held:
                held_by.append((seen, held))
        return held_by

    def _ask_owners(self, held_by: list[_Held], now_s: float) -> None:
        """Probe the sockets that these processes hold, side by side: one that keeps silent mustn't delay the others."""

        def probe(one: _Held) -> None:
            seen, own, held = one
            self._probe(seen, own, now_s, held)

        if len(held_by) > 1:
            try:
                with ThreadPoolExecutor(max_workers=_PROBES_AT_ONCE, thread_name_prefix="probe") as pool:
                    list(pool.map(probe, held_by))
            except RuntimeError:  # no thread can be had: in turn, then; what was asked already isn't asked again
                held_by = [one for one in held_by if one[0].endpoint is None]
            else:
                return
        for one in held_by:
            probe(one)

    def _guess(self, lacking: list[Candidate], unowned: list[ListeningSocket], now_s: float) -> None:
        """Ask each port that could be theirs; the program's arguments in its answer tell whose it is."""
        arguments = {id(seen): hashlib.sha256(seen.probe.command_line()).digest() for seen in lacking}
        holders = Counter(arguments.values())
        turn = self._turns * _MAX_GUESSED_PROCESSES % len(lacking)
        for seen in (lacking[turn:] + lacking[:turn])[:_MAX_GUESSED_PROCESSES]:
            seen.ambiguous = holders[arguments[id(seen)]] > 1
            if not seen.ambiguous:
                self._probe(seen, unowned, now_s, {})
                claimed = seen.endpoint.inode if seen.endpoint else None
                unowned = [socket for socket in unowned if socket.inode != claimed]

    def _postpone(self, seen: Candidate) -> None:
        seen.probing.note_failure(time.monotonic())
        self._faults.note(seen.process)

    def _probe(self, seen: Candidate, candidates: list[ListeningSocket], now_s: float, held: dict[int, int]) -> None:
        """Ask these ports; ``held`` are the descriptors of those that are the process's for certain."""
        try:
            found = seen.probe.ask(candidates, held, now_s)
        except TimeoutError:
            self._is_complete = False
            return
        except Exception:  # noqa: BLE001 -- one odd process stops nothing else
            self._postpone(seen)
            return
        if found is None:
            return
        socket, client = found
        seen.endpoint = Answering(
            process=seen.process,
            client=client,
            program=seen.program,
            go_environment=read_go_environment(self._proc, seen.process.pid),
            inode=socket.inode,
        )
        logs.event(
            logging.DEBUG,
            "pprof-found",
            f"container {seen.container.name}: process {seen.process.pid} answers pprof at {client.url}",
            container=seen.container.name,
            pid=seen.process.pid,
            url=client.url,
        )
