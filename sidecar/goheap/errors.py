"""Why a heap can't be read from outside. Each of them means: ask the program for its profile by HTTP instead."""

from __future__ import annotations

from sidecar.errors import OomHeapDumperError


class GoHeapError(OomHeapDumperError):
    """The program's own heap profile can't be read from its memory, or a raw snapshot can't be used."""


class UnknownLayoutError(GoHeapError):
    """What lies in memory isn't what the known versions of Go write, so any number read from it would be a guess."""


class ProfilingOffError(GoHeapError):
    """The program keeps no heap profile: ``runtime.MemProfileRate`` is 0 or nothing in it ever reads the profile."""


class NotGoError(GoHeapError):
    """The process doesn't run a Go program, for certain."""
