"""A program in a cgroup that takes and gives back memory at command."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from localpod.cgroups import Cgroup

MIB = 1 << 20

_PROGRAM = """
import mmap, os, sys
for file in sys.argv[1:]:
    with open(file, "w") as joined:
        joined.write("0")
taken = []
print("ready", flush=True)
for line in sys.stdin:
    command, argument = line.split()
    if command == "take":
        for _ in range(int(argument)):
            taken.append(mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
            for offset in range(0, 1 << 20, 4096):
                taken[-1][offset] = 1
    elif command == "give":
        for _ in range(int(argument)):
            taken.pop().close()
    elif command == "read":
        with open(argument, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while file.read(1 << 20):
                pass
    print("done", flush=True)
"""


class Eater:
    """The running program; anonymous memory in whole MiB."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def _do(self, command: str) -> bool:
        self.begin(command)
        assert self.process.stdout is not None
        return self.process.stdout.readline() == "done\n"

    def begin(self, command: str) -> None:
        """Give a command and don't wait for it."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def take(self, mib: int) -> bool:
        """Take memory; whether it lived through it."""
        return self._do(f"take {mib}")

    def give(self, mib: int) -> None:
        """Give memory back."""
        assert self._do(f"give {mib}")

    def read(self, path: Path) -> None:
        """Read a file that the kernel is told to forget first, so that its page cache is charged here."""
        assert self._do(f"read {path}")


@contextlib.contextmanager
def eater(cgroup: Cgroup, *prefix: str) -> Iterator[Eater]:
    """Start it in a cgroup, below a command such as ``unshare``; it is killed at the end."""
    command = [*prefix, sys.executable, "-c", _PROGRAM, *map(str, cgroup.join_files)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield Eater(process)
        finally:
            process.kill()
            with contextlib.suppress(BrokenPipeError):
                process.communicate()


def big_files(total_bytes: int) -> list[Path]:
    """Files of the machine itself, that many bytes of them, as far as there are."""
    found: list[Path] = []
    for folder, _, names in os.walk("/usr/lib"):
        for path in (Path(folder) / name for name in names):
            if not path.is_symlink() and path.stat().st_size > MIB:
                found.append(path)
                total_bytes -= path.stat().st_size
                if total_bytes <= 0:
                    return found
    return found
