"""Holds the OOM killer off while a profile is saved: opt-in, bounded, and undone whatever happens to the sidecar.

Two ways: a brake (``memory.high``, v2) set in advance, and a raise of the limit by a bounded amount for a bounded time.
"""

from sidecar.guard.errors import GuardJournalError, GuardUnavailableError
from sidecar.guard.guard import Guard
from sidecar.guard.guarded import Guarded

__all__ = ["Guard", "GuardJournalError", "GuardUnavailableError", "Guarded"]
