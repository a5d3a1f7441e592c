"""Learns which port of which process answers pprof while the pod is healthy, so that the crisis costs one request."""

from __future__ import annotations

import time
from pathlib import Path

from sidecar.core.model import Container, Process
from sidecar.errors import ASK_CHECK
from sidecar.kernel import go_executable, sockets
from sidecar.kernel.sockets import ListeningSocket
from sidecar.settings import PprofSettings
from sidecar.watch.candidates import Answering, Candidate
from sidecar.watch.faults import Faults
from sidecar.watch.port_probe import PortProbe, new_retry
from sidecar.watch.port_search import PortSearch
from sidecar.watch.programs import Programs

# Young processes are looked at each second, as a leak may begin with the program; later ten seconds will do.
_YOUNG_S = 60.0
_YOUNG_INTERVAL_S = 1.0
_OLD_INTERVAL_S = 10.0
# A look may not cost more than a hundredth of the time: a pod with ten thousand connections is looked at less often.
_COST_FACTOR = 100.0
# Within this time a process that is being set up shows what it runs, if we may see it at all.
_UNSURE_S = 3.0


class Endpoints:
    """The pprof endpoints of the pod's processes. `refresh` is for one thread, the rest for any."""

    def __init__(self, proc: Path, settings: PprofSettings) -> None:
        self._proc = proc
        self._settings = settings
        self._seen: dict[Process, Candidate] = {}
        self._next_look_s = 0.0
        self._hurried = False
        self._programs = Programs(proc)
        self._faults = Faults("looking for the pprof port")
        self._search = PortSearch(proc, self._faults)

    @property
    def faults(self) -> int:
        """How often the work on a process failed in an unforeseen way."""
        return self._faults.count

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
            reasons += (
                f"port {port} of process {process.pid} is another process's too, and which of them answers isn't known"
                for port in seen.shared_ports
            )
            reasons += seen.probe.reasons
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
        began_s = time.thread_time()
        listening = sockets.read_listening(self._proc)
        self._drop_lost(listening)
        self._follow_execs(now_s)
        lacking = [seen for seen in self._seen.values() if self._is_candidate(seen, now_s)]
        answering = [seen for seen in self._seen.values() if seen.endpoint is not None]
        if not self._search.ask(lacking, answering, listening, now_s):
            self._hurried = True
        cost_s = time.thread_time() - began_s
        young = any(seen.endpoint is None and now_s - seen.since_s < _YOUNG_S for seen in self._seen.values())
        self._next_look_s = now_s + max(_YOUNG_INTERVAL_S if young else _OLD_INTERVAL_S, _COST_FACTOR * cost_s)

    def forget_refusals(self) -> None:
        """Ask every port again at the next refresh."""
        for seen in tuple(self._seen.values()):
            seen.probe.forget_refusals()
            seen.probing.hasten()
        self._hurried = True

    def close(self) -> None:
        """Close every connection."""
        for seen in tuple(self._seen.values()):
            if seen.endpoint is not None:
                seen.endpoint.client.close()

    def _follow(self, containers: tuple[Container, ...], now_s: float) -> None:
        present = {process: container for container in containers for process in container.processes}
        self._programs.limit(len(present))
        for process in self._seen.keys() - present.keys():
            gone = self._seen.pop(process)
            gone.drop_endpoint()
        for process, container in present.items():
            seen = self._seen.get(process)
            if seen is None:
                probe = PortProbe(self._proc, process.pid, self._settings)
                seen = Candidate(process=process, container=container, since_s=now_s, probe=probe)
                self._identify(seen, go_executable.executable_identity(self._proc, process.pid))
                self._seen[process] = seen
                self._hurried = True
            else:
                seen.container, seen.process = container, process  # it may have another name by now

    def _is_candidate(self, seen: Candidate, now_s: float) -> bool:
        """Ports of programs that are no Go programs are never touched, unless the settings name them."""
        is_due = seen.endpoint is None and seen.probing.is_due(now_s)
        return is_due and (bool(self._settings.ports) or seen.is_go is not False)

    def _follow_execs(self, now_s: float) -> None:
        """An entry point script becomes the app by execve, as the same process."""
        for seen in self._seen.values():
            if seen.endpoint is None and seen.identifying.is_due(now_s):
                executable = go_executable.executable_identity(self._proc, seen.process.pid)
                if executable is not None and executable != seen.executable:  # the dying show none any more
                    self._identify(seen, executable)

    def _identify(self, seen: Candidate, executable: tuple[int, int] | None) -> None:
        """Learn what a process runs. One that no parser of ours is ready for may be anything."""
        try:
            seen.is_go, seen.program = self._programs.identify(seen.process, executable)
            seen.executable, seen.identifying = executable, new_retry()
        except Exception:  # noqa: BLE001 -- one odd executable stops nothing else
            seen.is_go = seen.program = seen.executable = None
            seen.identifying.note_failure(time.monotonic())
            self._faults.note(seen.process)

    def _drop_lost(self, listening: tuple[ListeningSocket, ...]) -> None:
        """What leads nowhere is looked for anew: the process may have the socket by another descriptor, say."""
        inodes = {socket.inode for socket in listening}
        for seen in self._seen.values():
            found = seen.endpoint
            if found is not None and (found.inode not in inodes or found.client.is_closed or found.client.why_lost()):
                seen.drop_endpoint()
