"""Asks the processes of the pod for pprof, those that hold a listening socket side by side."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sidecar import logs
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
        listening: tuple[ListeningSocket, ...],
        attributed: set[int],
        now_s: float,
    ) -> bool:
        """Ask those without an endpoint; whether there was time for all of their ports.

        ``attributed`` are the inodes of the sockets that are known to be somebody's.
        """
        self._is_complete = True
        self._turns += 1
        owned = attributed | self._ask_owners(lacking, listening, now_s)
        guessable = [seen for seen in lacking if seen.unattributable and seen.endpoint is None]
        if guessable:
            self._guess(guessable, [socket for socket in listening if socket.inode not in owned], now_s)
        return self._is_complete

    def _ask_owners(self, lacking: list[Candidate], listening: tuple[ListeningSocket, ...], now_s: float) -> set[int]:
        """Probe the sockets that these processes hold; the inodes that are known to be theirs.

        The processes are asked side by side: one that keeps silent must not delay the others.
        """
        attributed: set[int] = set()
        inodes = {socket.inode for socket in listening}
        held_by: list[_Held] = []
        for seen in lacking:
            try:
                held = held_sockets.find_descriptors(self._proc, seen.process.pid, inodes)
            except NotPermittedError:
                seen.unattributable = True
                continue
            except Exception:  # noqa: BLE001 -- one odd process stops nothing else
                self._postpone(seen)
                continue
            seen.unattributable = False
            attributed |= held.keys()
            if held:
                held_by.append((seen, [socket for socket in listening if socket.inode in held], held))

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
                return attributed
        for one in held_by:
            probe(one)
        return attributed

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
