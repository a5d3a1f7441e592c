"""Calls as a profile shows them, and what is asked of whoever names them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Frame:
    """One call, physical or inlined. ``pc`` is inside of the call; ``entry`` is that of the physical function."""

    pc: int
    name: str
    file: str
    line: int
    start_line: int
    entry: int
    inlined: bool

    @property
    def named(self) -> bool:
        """Whether all of it is known."""
        return bool(self.name and self.file and self.line)


class Symbols(Protocol):
    """What names frames. Addresses are those of the process."""

    def frame(self, return_pc: int) -> Frame | None:
        """The call that returns to an address; None outside of Go."""
        ...

    def name(self, pc: int) -> str | None:
        """The function at an address; None outside of Go."""
        ...

    def expand_last(self, return_pc: int) -> list[int]:
        """The last address of a stack with the callers that are inlined around it."""
        ...


def printed_name(name: str) -> str:
    """A function's name with its type arguments left out (``funcNameForPrint``).

    >>> printed_name("main.prepend[go.shape.int,go.shape.[]string]")
    'main.prepend[...]'
    """
    first, last = name.find("["), name.rfind("]")
    return name if first < 0 or last < first else f"{name[:first]}[...]{name[last + 1 :]}"
