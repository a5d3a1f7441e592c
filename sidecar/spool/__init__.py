"""The bounded directory that owns each dump until the store confirmed it."""

from sidecar.spool.spool import Spool
from sidecar.spool.writer import SpoolWriter, WrittenFile

__all__ = ["Spool", "SpoolWriter", "WrittenFile"]
