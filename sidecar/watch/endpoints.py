"""Learns which port of which process answers pprof while the pod is healthy, so that the crisis costs one request."""

from __future__ import annotations

import logging
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sidecar import logs
from sidecar.core.model import Container, GoProgram, Process
from sidecar.errors import ASK_CHECK, NotPermittedError, TargetGoneError, UnreadableExecutableError
from sidecar.kernel import go_executable, sockets
from sidecar.kernel.environment import read_go_environment
from sidecar.kernel.sockets import ListeningSocket
from sidecar.pprof_http import PprofClient, Refusal, connect
from sidecar.settings import PprofSettings

# Young processes are looked at each second, as a leak may begin with the program; later ten seconds will do.
_YOUNG_S = 60.0
_YOUNG_INTERVAL_S = 1.0
_OLD_INTERVAL_S = 10.0
# A look may not cost more than a hundredth of the time: a pod with ten thousand connections is looked at less often.
_COST_FACTOR = 100.0
_FIRST_RETRY_S = 2.0
_LAST_RETRY_S = 600.0
# Without the right to see whose sockets they are, each port is asked for each process it could belong to.
_MAX_GUESSED_PROCESSES = 8
_PROBES_AT_ONCE = 8
_FEW_PROGRAMS = 16
# How long one process may keep a look waiting; ports that keep silent take seconds each.
_PROBE_BUDGET_S = 3.0
# Within this time a process that is being set up shows what it runs, if we may see it at all.
_UNSURE_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """A process that answers pprof, and what was learnt of it in calm times: at the crisis it may be gone."""

    process: Process
    client: PprofClient
    program: GoProgram | None
    go_environment: dict[str, str] | None
    inode: int


@dataclass(slots=True)
class _Refused:
    reason: str
    next_s: float
    delay_s: float


@dataclass(slots=True)
class _Seen:
    """What is known of a process: its endpoint, and the ports that refused."""

    process: Process
    container: Container
    since_s: float
    executable: tuple[int, int] | None
    is_go: bool | None
    program: GoProgram | None
    endpoint: Answering | None = None
    refused: dict[int, _Refused] | None = None
    unattributable: bool = False
    ambiguous: bool = False


class Endpoints:
    """The pprof endpoints of the pod's processes. `refresh` is for one thread, the rest for any."""

    def __init__(self, proc: Path, settings: PprofSettings) -> None:
        self._proc = proc
        self._settings = settings
        self._seen: dict[Process, _Seen] = {}
        self._next_look_s = 0.0
        self._hurried = False
        self._looks = 0
        self._programs: dict[tuple[int, int], GoProgram | None] = {}

    def of(self, container: Container) -> list[Answering]:
        """The processes of a container that answer, each with its warm connection."""
        found = []
        for process in container.processes:
            seen = self._seen.get(process)
            endpoint = seen.endpoint if seen else None
            if endpoint is not None and not endpoint.client.is_closed:
                found.append(endpoint)
        return found

    def was_looked_at(self, container: Container) -> bool:
        """Whether any process of a container has been examined yet; one that just came, or just executes, hasn't."""
        now_s = time.monotonic()
        seen = (self._seen.get(process) for process in container.processes)
        return any(one is not None and (one.is_go is not None or now_s - one.since_s > _UNSURE_S) for one in seen)

    def is_without_go(self, container: Container) -> bool:
        """Whether no process of a container is a Go program, for certain: then there is nothing to dump.

        Never so where the settings name ports: they may know better.
        """
        if self._settings.ports:
            return False
        seen = [one for process in container.processes if (one := self._seen.get(process)) is not None]
        return bool(seen) and all(one.is_go is False for one in seen)

    def why_none(self, container: Container) -> str:
        """Why a container has no endpoint, for people."""
        reasons: list[str] = []
        for process in container.processes:
            seen = self._seen.get(process)
            if seen is None:
                continue
            if seen.ambiguous:
                reasons.append(
                    f"process {process.pid} has the same arguments as another one, and whose sockets are whose isn't "
                    f"visible ({ASK_CHECK})"
                )
            elif seen.unattributable:
                reasons.append(f"the sockets of process {process.pid} aren't visible ({ASK_CHECK})")
            reasons += [refused.reason for refused in (seen.refused or {}).values()]
        if reasons:
            return "; ".join(dict.fromkeys(reasons))
        if self._settings.ports:
            return f"none of its processes listens on PPROF_PORTS {', '.join(map(str, self._settings.ports))}"
        return "none of its processes is a Go program that listens on a TCP port"

    def refresh(self, containers: tuple[Container, ...], now_s: float) -> None:
        """Follow processes and ports that came and went; probe what is new or due again."""
        self._follow(containers, now_s)
        if now_s < self._next_look_s and not self._hurried:
            return
        self._hurried = False
        self._looks += 1
        began_s = time.monotonic()
        listening = sockets.read_listening(self._proc)
        cost_s = time.monotonic() - began_s
        self._drop_closed(listening)
        self._follow_execs()
        lacking = [seen for seen in self._seen.values() if seen.endpoint is None and self._is_candidate(seen)]
        attributed = {seen.endpoint.inode for seen in self._seen.values() if seen.endpoint is not None}
        attributed |= self._ask_owners(lacking, listening, now_s)
        guessable = [seen for seen in lacking if seen.unattributable and seen.endpoint is None]
        if guessable:
            self._guess(guessable, [s for s in listening if s.inode not in attributed], now_s)
        young = any(seen.endpoint is None and now_s - seen.since_s < _YOUNG_S for seen in self._seen.values())
        self._next_look_s = now_s + max(_YOUNG_INTERVAL_S if young else _OLD_INTERVAL_S, _COST_FACTOR * cost_s)

    def forget_refusals(self) -> None:
        """Ask every port again at the next refresh."""
        for seen in tuple(self._seen.values()):
            for refused in tuple((seen.refused or {}).values()):
                refused.next_s = 0.0
        self._hurried = True

    def close(self) -> None:
        """Close every connection."""
        for seen in tuple(self._seen.values()):
            if seen.endpoint is not None:
                seen.endpoint.client.close()

    def _follow(self, containers: tuple[Container, ...], now_s: float) -> None:
        present = {process: container for container in containers for process in container.processes}
        if len(self._programs) > 2 * len(present) + _FEW_PROGRAMS:
            self._programs.clear()  # containers come and go, and the numbers of their files are used again
        for process in self._seen.keys() - present.keys():
            gone = self._seen.pop(process)
            if gone.endpoint is not None:
                gone.endpoint.client.close()
        for process, container in present.items():
            seen = self._seen.get(process)
            if seen is None:
                executable = go_executable.executable_identity(self._proc, process.pid)
                is_go, program = self._identify(process, executable)
                self._seen[process] = _Seen(
                    process=process,
                    container=container,
                    since_s=now_s,
                    executable=executable,
                    is_go=is_go,
                    program=program,
                )
                self._hurried = True
            else:
                seen.container, seen.process = container, process  # it may have another name by now

    def _is_candidate(self, seen: _Seen) -> bool:
        """Ports of programs that are no Go programs are never touched, unless the settings name them."""
        return bool(self._settings.ports) or seen.is_go is not False

    def _follow_execs(self) -> None:
        """An entry point script becomes the app by execve, as the same process."""
        for seen in self._seen.values():
            if seen.endpoint is None:
                executable = go_executable.executable_identity(self._proc, seen.process.pid)
                if executable is not None and executable != seen.executable:  # the dying show none any more
                    seen.executable = executable
                    seen.is_go, seen.program = self._identify(seen.process, executable)

    def _identify(self, process: Process, identity: tuple[int, int] | None) -> tuple[bool | None, GoProgram | None]:
        """Whether it is a Go program (None where its executable isn't readable), and which."""
        if identity is None or identity not in self._programs:
            try:
                program = go_executable.read_go_program(self._proc, process.pid)
            except (NotPermittedError, TargetGoneError, UnreadableExecutableError):
                return None, None
            if identity is None:
                return program is not None, program
            self._programs[identity] = program
        return self._programs[identity] is not None, self._programs[identity]

    def _drop_closed(self, listening: tuple[ListeningSocket, ...]) -> None:
        inodes = {socket.inode for socket in listening}
        for seen in self._seen.values():
            if seen.endpoint is not None and (seen.endpoint.client.is_closed or seen.endpoint.inode not in inodes):
                seen.endpoint.client.close()
                seen.endpoint = None

    def _ask_owners(self, lacking: list[_Seen], listening: tuple[ListeningSocket, ...], now_s: float) -> set[int]:
        """Probe the sockets that these processes hold; the inodes that are known to be theirs.

        The processes are asked side by side: one that keeps silent must not delay the others.
        """
        attributed: set[int] = set()
        held_by: list[tuple[_Seen, list[ListeningSocket]]] = []
        for seen in lacking:
            try:
                held = sockets.read_socket_inodes(self._proc, seen.process.pid)
            except NotPermittedError:
                seen.unattributable = True
                continue
            seen.unattributable = False
            attributed |= held
            own = [socket for socket in listening if socket.inode in held]
            if own:
                held_by.append((seen, own))

        def probe(one: tuple[_Seen, list[ListeningSocket]]) -> None:
            self._probe(one[0], one[1], now_s, owner_proven=True)

        if len(held_by) > 1:
            try:
                with ThreadPoolExecutor(max_workers=_PROBES_AT_ONCE, thread_name_prefix="probe") as pool:
                    list(pool.map(probe, held_by))
            except RuntimeError:  # no thread can be had: in turn, then; what was asked already isn't asked again
                held_by = [(seen, own) for seen, own in held_by if seen.endpoint is None]
            else:
                return attributed
        for one in held_by:
            probe(one)
        return attributed

    def _guess(self, lacking: list[_Seen], unowned: list[ListeningSocket], now_s: float) -> None:
        """Ask each port that could be theirs; the program's arguments in its answer tell whose it is."""
        lines = Counter(self._command_line(seen.process) for seen in lacking)
        turn = self._looks * _MAX_GUESSED_PROCESSES % len(lacking)
        for seen in (lacking[turn:] + lacking[:turn])[:_MAX_GUESSED_PROCESSES]:
            seen.ambiguous = lines[self._command_line(seen.process)] > 1
            if not seen.ambiguous:
                self._probe(seen, unowned, now_s, owner_proven=False)
                claimed = seen.endpoint.inode if seen.endpoint else None
                unowned = [socket for socket in unowned if socket.inode != claimed]

    def _probe(self, seen: _Seen, candidates: list[ListeningSocket], now_s: float, *, owner_proven: bool) -> None:
        wanted = self._settings.ports
        known = seen.refused or {}
        seen.refused = {socket.inode: known[socket.inode] for socket in candidates if socket.inode in known}
        ends_s = time.monotonic() + _PROBE_BUDGET_S
        for socket in sorted(candidates, key=lambda s: wanted.index(s.port) if s.port in wanted else s.port):
            refused = seen.refused.get(socket.inode)
            if (wanted and socket.port not in wanted) or (refused is not None and now_s < refused.next_s):
                continue
            if time.monotonic() >= ends_s:
                self._hurried = True  # the rest at the next look, before anything that already refused
                return
            answer = connect(
                socket.dial_hosts,
                socket.port,
                self._command_line(seen.process),
                self._settings,
                owner_proven=owner_proven,
            )
            if isinstance(answer, Refusal):
                delay_s = min(_LAST_RETRY_S, refused.delay_s * 2) if refused else _FIRST_RETRY_S
                seen.refused[socket.inode] = _Refused(answer.reason, time.monotonic() + delay_s, delay_s)
                continue
            seen.endpoint = Answering(
                process=seen.process,
                client=answer,
                program=seen.program,
                go_environment=read_go_environment(self._proc, seen.process.pid),
                inode=socket.inode,
            )
            seen.refused = None
            logs.event(
                logging.DEBUG,
                "pprof-found",
                f"container {seen.container.name}: process {seen.process.pid} answers pprof at {answer.url}",
                container=seen.container.name,
                pid=seen.process.pid,
                url=answer.url,
            )
            return

    def _command_line(self, process: Process) -> bytes:
        try:
            return (self._proc / str(process.pid) / "cmdline").read_bytes()
        except OSError:
            return b""
