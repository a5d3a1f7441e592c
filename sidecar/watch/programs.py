"""Whether the pod's processes are Go programs; each executable is read once, however many processes run it."""

from __future__ import annotations

from pathlib import Path

from sidecar.core.model import GoProgram, Process
from sidecar.errors import NotPermittedError, TargetGoneError, UnreadableExecutableError
from sidecar.kernel import go_executable

_FEW_PROGRAMS = 16


class Programs:
    """What executables say of themselves, by their device and inode."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self._known: dict[tuple[int, int], GoProgram | None] = {}

    def limit(self, processes: int) -> None:
        """Forget all if there are many more than processes: containers come and go, and inodes are used again."""
        if len(self._known) > 2 * processes + _FEW_PROGRAMS:
            self._known.clear()

    def identify(self, process: Process, executable: tuple[int, int] | None) -> tuple[bool | None, GoProgram | None]:
        """Whether it is a Go program (None where its executable isn't readable), and which."""
        if executable is None or executable not in self._known:
            try:
                program = go_executable.read_go_program(self._proc, process.pid)
            except (NotPermittedError, TargetGoneError, UnreadableExecutableError):
                return None, None
            if executable is None:
                return program is not None, program
            self._known[executable] = program
        return self._known[executable] is not None, self._known[executable]
