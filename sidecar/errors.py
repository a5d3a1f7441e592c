"""Errors that reach a person, and the exit code each kind owns.

Adapters translate what the operating system and the libraries raise into these at the border.
"""

from __future__ import annotations

# Which right is missing depends on both sides' users and capabilities, which only this command compares.
ASK_CHECK = "oom-heap-dumper check says what to grant"


class OomHeapDumperError(Exception):
    """Base of every error that ends a command with one line; ``exit_code`` is the process's."""

    exit_code = 1


class ConfigError(OomHeapDumperError):
    """A setting is wrong. The message names the setting, its value and the remedy."""

    exit_code = 2


class StartupError(OomHeapDumperError):
    """The settings are sound but the surroundings don't allow to start (no PID sharing, spool in use)."""

    exit_code = 3


class TargetGoneError(OomHeapDumperError):
    """The process or its cgroup no longer exists."""


class TargetReadError(OomHeapDumperError):
    """The kernel answered, but not with what its documentation promises, or the read failed."""


class UnreadableExecutableError(OomHeapDumperError):
    """An executable says neither that it is a Go program nor that it isn't one (packed, or without sections)."""


class NotPermittedError(OomHeapDumperError):
    """The kernel refused to show something of another process; the message ends with `ASK_CHECK` where that helps."""


class PprofError(OomHeapDumperError):
    """A pprof endpoint gave no usable profile; the message says why."""


class EmptyProfileError(PprofError):
    """The profile is sound but has no samples: the program's first collection is still to come."""


class SpoolError(OomHeapDumperError):
    """The spool could not take a file (disk full, read-only, over its size with nothing left to drop)."""


class StoreError(OomHeapDumperError):
    """The store refused or failed. ``remedy`` says what to do; ``transient`` if a quick retry may help.

    ``may_be_object`` tells that it may be this object's fault alone, which another object shows.
    """

    def __init__(self, message: str, *, remedy: str = "", transient: bool = False, may_be_object: bool = False) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.transient = transient
        self.may_be_object = may_be_object


class NotFoundError(OomHeapDumperError):
    """No dump matches what was asked for."""


class IntegrityError(OomHeapDumperError):
    """What was fetched isn't what was captured: its sha256 differs from the manifest's."""
