"""TCP for httpcore to a port that must be a certain process's: what isn't connected with that one is closed unused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import httpcore

from sidecar.pprof.deadline_tcp import DeadlineBackend


class Owner(Protocol):
    """The process that a port belongs to."""

    @property
    def is_proven(self) -> bool:
        """Whether `why_lost` also tells that the port has gone to another while the process lives on."""
        ...

    def why_lost(self) -> str | None:
        """Why the port may be somebody else's by now; None while it isn't. Cheap; raises nothing."""
        ...


class OwnedBackend(httpcore.NetworkBackend):
    """Connections whose timeouts are moments, as those of `DeadlineBackend`. ``connections`` were made so far."""

    def __init__(self, owner: Owner | None) -> None:
        """Without an owner whoever has the port will do."""
        self.connections = 0
        self._owner = owner
        self._tcp = DeadlineBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect, and only then ask for the owner: one who has died before that may have lost the port already."""
        stream = self._tcp.connect_tcp(host, port, timeout, local_address, socket_options)
        self.connections += 1
        why = self._owner.why_lost() if self._owner is not None else None
        if why is not None:
            stream.close()
            raise httpcore.ConnectError(why)
        return stream
