"""Processes that may answer pprof, and those that do."""

from __future__ import annotations

from dataclasses import dataclass, field

from sidecar.core.backoff import Retry
from sidecar.core.model import Container, GoProgram, Process
from sidecar.pprof import PprofClient
from sidecar.watch.port_probe import PortProbe, new_retry


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """A process that answers pprof, and what was learnt of it in calm times: at the crisis it may be gone."""

    process: Process
    client: PprofClient
    program: GoProgram | None
    go_environment: dict[str, str] | None
    inode: int


@dataclass(slots=True)
class Candidate:
    """What is known of a process: its endpoint, or what became of the search for one.

    ``held`` are the inodes of the listening sockets that it had when it was last looked at, ``shared_ports`` those of
    their ports at which another process may answer.
    """

    process: Process
    container: Container
    since_s: float
    probe: PortProbe
    executable: tuple[int, int] | None = None
    is_go: bool | None = None
    program: GoProgram | None = None
    endpoint: Answering | None = None
    held: frozenset[int] = frozenset()
    shared_ports: tuple[int, ...] = ()
    unattributable: bool = False
    ambiguous: bool = False
    identifying: Retry = field(default_factory=new_retry)
    probing: Retry = field(default_factory=new_retry)

    @property
    def known_inodes(self) -> frozenset[int]:
        """Of the sockets that are its, as far as is known."""
        return self.held if self.endpoint is None else self.held | {self.endpoint.inode}

    def drop_endpoint(self) -> None:
        """Close it and forget it, so that it is looked for again."""
        if self.endpoint is not None:
            self.endpoint.client.close()
            self.endpoint = None
