"""Whose a port is: the process that listened there in calm times, and the socket that it listens on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sidecar.kernel import held_sockets, residents


@dataclass(frozen=True, slots=True, kw_only=True)
class PortOwner:
    """A process by its number and its start, and its socket by the descriptor that it has it by.

    ``descriptor`` is None where the sockets of the process aren't visible: then only its end is noticed.
    """

    proc: Path
    pid: int
    start_ticks: int | None
    inode: int
    descriptor: int | None

    @property
    def is_proven(self) -> bool:
        """Whether the socket is seen to be the process's."""
        return self.descriptor is not None

    def why_lost(self) -> str | None:
        """Why the port may be somebody else's by now; None while it isn't. Two small reads of /proc, no walk.

        A socket that listens does so until it is closed, and meanwhile nobody else can listen on its port but by
        sharing it, which `port_search.find_shared` sees to: who is connected with the port and finds its owner
        unchanged after that is connected with the owner.
        """
        seen = residents.look_at(self.proc, self.pid)
        if seen is None or seen.start_ticks != self.start_ticks:
            return f"process {self.pid} has ended"
        if self.descriptor is None or held_sockets.holds(self.proc, self.pid, self.descriptor, self.inode):
            return None
        return f"process {self.pid} has closed the port's socket"
