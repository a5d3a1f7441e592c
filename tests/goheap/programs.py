"""Go programs to read from: built of each version in each form, run, and told what to do.

By default a few cells of the matrix of versions, forms and machines are tested. ``GOHEAP_MATRIX=all`` tests every one:
that installs all toolchains once and takes minutes.

Programs for another machine run in an emulator that is a process. It lays their memory out as they ask for it, without
an offset, so that it can be read where it would be on their own machine.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from localpod import toolchain
from localpod.packages import FOR_OTHER_MACHINES
from sidecar.goheap.elf import ElfFile

SOURCES = Path(__file__).parent
VERSIONS = ("1.21", "1.22", "1.23", "1.24", "1.25", "1.26", "1.27")
FORMS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "plain": ((), {}),
    "stripped": (("-ldflags=-s -w",), {}),
    "stripped-unnamed": (("-ldflags=-s -w -buildid=",), {}),
    "pie": (("-buildmode=pie",), {}),
    "stripped-pie": (("-buildmode=pie", "-ldflags=-s -w"), {}),
    "cgo": ((), {"CGO_ENABLED": "1"}),
    "stripped-cgo-pie": (("-buildmode=pie", "-ldflags=-s -w"), {"CGO_ENABLED": "1"}),
    "static-cgo": (("-ldflags=-linkmode=external -extldflags=-static",), {"CGO_ENABLED": "1"}),
}
_MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")
_EMULATED = {"arm64"} if _MACHINE == "amd64" else set()
# The loader that position-independent programs name is none of this machine's.
_EMULATOR = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")
_DEADLINE_S = 60


@dataclass(frozen=True)
class Cell:
    """One version of Go and one way to link. ``machine`` may be another one than this."""

    version: str
    form: str
    machine: str = _MACHINE

    def __str__(self) -> str:
        return f"{self.version}-{self.form}" + ("" if self.machine == _MACHINE else f"-{self.machine}")


_ALL = os.environ.get("GOHEAP_MATRIX") == "all"
_FEW = {
    *(Cell("1.27", form) for form in ("plain", "stripped-pie", "cgo")),
    *(Cell("1.21", form) for form in ("stripped", "cgo")),
    *(Cell("1.27", form, "arm64") for form in ("plain", "stripped-pie")),
    Cell("1.21", "stripped", "arm64"),
}
CELLS = tuple(
    cell
    for machine in (_MACHINE, *_EMULATED)
    for version in VERSIONS
    for form, (_, environment) in FORMS.items()
    if machine == _MACHINE or not environment  # C for another machine needs a compiler of its own
    for cell in (Cell(version, form, machine),)
    if _ALL or cell in _FEW
)
NEWEST = Cell("1.27", "stripped")
UNNAMED = Cell("1.27", "stripped-unnamed")
OLDEST = Cell("1.21", "stripped")


def build(cell: Cell, source: str = "program") -> Path:
    """The path of a program, built if need be."""
    flags, environment = FORMS[cell.form]
    if environment and shutil.which("gcc") is None:
        pytest.skip("programs with C in them need gcc")
    found = toolchain.find(cell.version)
    out = found.cache / "go-programs" / "goheap" / f"{source}-{found.version}-{cell.form}-{cell.machine}"
    if toolchain.is_built(out, SOURCES / source):
        return out
    command = [str(found.go), "build", "-trimpath", *flags, "-o", str(out), "."]
    environment = {**toolchain._environment(found.cache), "GOARCH": cell.machine, **environment}
    out.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        command, cwd=SOURCES / source, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


class Running:
    """A program that runs and obeys; a context manager.

    ``proc`` is where `prepare` finds it: an emulated one by the names that a machine of its own would show.
    """

    def __init__(self, path: Path, *, rate: int | None = None, gogc: str = "off", depth: int | None = None) -> None:
        """``rate`` is runtime.MemProfileRate, ``depth`` that of stacks; None for Go's defaults."""
        self.path = path
        self.proc = Path("/proc")
        is_emulated = _machine_of(path) in _EMULATED
        debug = {"memprofilerate": rate, "profstackdepth": depth}
        godebug = ",".join(f"{name}={value}" for name, value in debug.items() if value is not None)
        self._process = subprocess.Popen(
            [*(_emulator() if is_emulated else ()), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"GOGC": gogc, "GODEBUG": godebug},
            text=True,
        )
        self.pid = self._process.pid
        self._answer()
        self._proc_of_its_own: tempfile.TemporaryDirectory[str] | None = None
        if is_emulated:
            self._proc_of_its_own = tempfile.TemporaryDirectory()
            self.proc = Path(self._proc_of_its_own.name)
            self._show_as_on_its_own_machine()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        if self._proc_of_its_own is not None:
            self._proc_of_its_own.cleanup()

    def tell(self, *commands: str) -> str:
        """Have commands done, one after the other; the last one's answer."""
        answer = ""
        for command in commands:
            self.begin(command)
            answer = self._answer()
            assert answer != "what?", command
        return answer

    def begin(self, command: str) -> None:
        """Give a command without waiting for its end."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def profile(self, path: Path) -> bytes:
        """The heap profile as the program itself writes it."""
        assert self.tell(f"profile {path}") == "done"
        return path.read_bytes()

    def kill(self) -> None:
        """End it as the OOM killer does."""
        self._process.kill()
        self._process.wait(_DEADLINE_S)

    def _show_as_on_its_own_machine(self) -> None:
        process = self.proc / str(self.pid)
        process.mkdir()
        (process / "exe").symlink_to(self.path)
        for name in ("mem", "root", "stat"):
            (process / name).symlink_to(f"/proc/{self.pid}/{name}")
        assert self.tell(f"copy /proc/self/maps {process / 'maps'}") == "done"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the program has ended"
        return line


def _machine_of(path: Path) -> str:
    with path.open("rb") as file:
        return ElfFile(file.fileno()).machine


def _emulator() -> tuple[str, ...]:
    if shutil.which(_EMULATOR[0]) is None or not Path(_EMULATOR[-1]).exists():
        pytest.skip(f"programs for another machine need the packages {' and '.join(FOR_OTHER_MACHINES.values())}")
    return _EMULATOR
