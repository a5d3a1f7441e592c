"""Where dumps go: S3 or a local directory, behind one small interface.

``open_store`` imports boto3 only when a bucket is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Where dumps go. Without a ``bucket`` they go below ``directory``, held to ``directory_size_bytes``."""

    bucket: str | None
    prefix: str
    directory: Path
    directory_size_bytes: int
    sse: str | None = None
    kms_key: str | None = None
    storage_class: str | None = None
    path_style: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One object of a store. ``key`` is whole, prefix included."""

    key: str
    size_bytes: int
    modified: datetime


class Store(Protocol):
    """A place that keeps dumps. Every method raises `StoreError`, and nothing else, when the store fails."""

    @property
    def location(self) -> str:
        """What a person calls the place: ``s3://bucket/prefix`` or a directory."""
        ...

    def put(self, key: str, source: Path) -> None:
        """Keep a copy of ``source`` as ``key``; returns only when the store has confirmed it."""
        ...

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """The objects whose key begins with ``prefix``, in key order."""
        ...

    def read(self, key: str, offset: int = 0) -> Iterator[bytes]:
        """The bytes of an object from ``offset`` on, in pieces. Raises `NotFoundError` if there is none."""
        ...

    def probe(self, key: str) -> None:
        """Prove the right to write by writing a few bytes as ``key``, and take them back where allowed."""
        ...


def location(settings: StoreSettings) -> str:
    """What a person calls the place that the settings name, without opening it."""
    if settings.bucket:
        return "/".join(part for part in (f"s3://{settings.bucket}", settings.prefix) if part)
    return str(settings.directory / settings.prefix) if settings.prefix else str(settings.directory)


def open_store(settings: StoreSettings) -> Store:
    """The store that the settings ask for. Touches neither network nor disk yet."""
    if settings.bucket:
        from sidecar.stores.s3 import S3Store  # boto3 is heavy: it must not load where it isn't used

        return S3Store(settings)
    from sidecar.stores.directory import DirectoryStore

    return DirectoryStore(settings)
