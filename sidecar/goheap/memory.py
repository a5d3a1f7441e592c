"""What reading memory means here, of a live process or of a copy. Pure."""

from __future__ import annotations

from typing import Protocol

from sidecar.errors import TargetReadError

Extent = tuple[int, int]
"""Address and length in bytes of a piece of memory."""


class UnmappedError(TargetReadError):
    """Nothing is mapped at the address."""


class Memory(Protocol):
    """What can be read of a process, or of a copy of its memory."""

    def read(self, address: int, size_bytes: int) -> bytes:
        """Exactly that many bytes; raises `UnmappedError` if they aren't all there."""
        ...
