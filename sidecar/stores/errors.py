"""The fault of one object, told apart from the fault of a whole store."""

from __future__ import annotations

from sidecar.errors import StoreError


class ObjectRefusedError(StoreError):
    """This object can't be kept; others may. Whoever stores many goes on with the next."""
