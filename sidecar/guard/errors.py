"""Why a container can't be guarded. The sidecar watches it all the same."""

from __future__ import annotations

from sidecar.errors import OomHeapDumperError


class GuardUnavailableError(OomHeapDumperError):
    """The guard can't be had for a container; the message says why and what to do. ``remedy`` is its second half."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}: {remedy}")
        self.reason = reason
        self.remedy = remedy


class GuardJournalError(GuardUnavailableError):
    """The journal can't be written or read. Without an entry in it no limit is touched."""
