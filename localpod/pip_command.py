"""How pip is asked for what is locked: quietly, and for nothing but wheels whose hashes are in the requirements."""

from __future__ import annotations

import sys
from pathlib import Path

_LOCKED = ("--quiet", "--disable-pip-version-check", "--no-input", "--only-binary=:all:", "--require-hashes")


def pip(command: str, requirements: Path, *options: str, interpreter: Path | None = None) -> list[str]:
    """The command line of ``pip install`` or ``pip download``, for another ``interpreter``'s environment if given.

    >>> pip("install", Path("dev.txt"), "--no-deps")[1:4], pip("install", Path("dev.txt"), "--no-deps")[-3:]
    (['-m', 'pip', 'install'], ['--no-deps', '-r', 'dev.txt'])
    """
    whose = [] if interpreter is None else ["--python", str(interpreter)]
    return [sys.executable, "-m", "pip", *whose, command, *_LOCKED, *options, "-r", str(requirements)]
