"""What a snapshot is written to, as far as its writer cares."""

from __future__ import annotations

from typing import Protocol


class Output(Protocol):
    """A file, as far as a snapshot needs one."""

    def write(self, piece: bytes | memoryview, /) -> object:
        """Take all of it. Raises what the file does, such as OSError."""
        ...
