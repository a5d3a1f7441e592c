"""Holds the OOM killer off while a profile is saved: opt-in, bounded, and undone whatever happens to the sidecar.

Two ways: a brake (``memory.high``, v2) set in advance, and a raise of the limit by a bounded amount for a bounded time.
Beside it, opt-in as well, ``memory.oom.group`` is kept off, so that a kill takes one process.
"""

from sidecar.guard.errors import GuardJournalError, GuardUnavailableError
from sidecar.guard.guard import Guard
from sidecar.guard.guarded import Guarded
from sidecar.guard.oom_group import KeptOff, OomGroup

__all__ = ["Guard", "GuardJournalError", "GuardUnavailableError", "Guarded", "KeptOff", "OomGroup"]
