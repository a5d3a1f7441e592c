"""Brings a dump from a store to a local directory, resumed where it broke off and checked against its manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sidecar.core.keys import MANIFEST_NAME, join_key
from sidecar.core.listing import Dump
from sidecar.core.printable import printable
from sidecar.errors import IntegrityError, OomHeapDumperError
from sidecar.stores import Store

_CHUNK_BYTES = 1 << 20

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloaded:
    """Where a dump lies now, and what a person should know about it."""

    folder: Path
    warnings: tuple[str, ...]


def fetch(store: Store, dump: Dump, directory: Path, progress: Progress) -> Downloaded:
    """Fetch a dump into a folder of its name below ``directory``; ``progress`` hears of bytes that are there.

    Raises IntegrityError if a file isn't what was captured, StoreError and NotFoundError as the store does, and
    OomHeapDumperError if the directory can't be written.
    """
    folder = directory / dump.name
    checksums: dict[str, str] = {}
    warnings: list[str] = []
    # the manifest comes first: it has the checksums of the others
    files = sorted(dump.files, key=lambda file: file.name != MANIFEST_NAME)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            transfer = _Transfer(store=store, key=join_key(dump.key, file.name), target=folder / file.name)
            transfer.run(file.size_bytes, checksums.get(file.name), progress)
            if file.name == MANIFEST_NAME:
                checksums = _checksums((folder / MANIFEST_NAME).read_bytes())
    except OSError as error:
        raise OomHeapDumperError(f"can't write {error.filename or folder}: {error.strerror}") from error
    names = {file.name for file in files}
    unchecked = [profile.name for profile in dump.profiles if profile.name not in checksums]
    if unchecked:
        warnings.append(f"not checked, for no manifest has their checksums: {', '.join(unchecked)}")
    missing = sorted(checksums.keys() - names)
    if missing:
        warnings.append(f"in the manifest but not in the store (yet): {printable(', '.join(missing))}")
    return Downloaded(folder=folder, warnings=tuple(warnings))


def _checksums(content: bytes) -> dict[str, str]:
    """The sha256 of each profile by its name; none if this is no manifest of ours."""
    try:
        return {str(profile["name"]): str(profile["sha256"]) for profile in json.loads(content)["profiles"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Transfer:
    """One file on its way to ``target``."""

    store: Store
    key: str
    target: Path

    def run(self, size_bytes: int, sha256: str | None, progress: Progress) -> None:
        """Fetch it. Only where the checksum is known can what is there already be relied upon."""
        part = self.target.with_name(f"{self.target.name}.part")
        if sha256 is not None and self.target.exists() and _digest(self.target).hexdigest() == sha256:
            progress(size_bytes)
            return
        if sha256 is None or (part.exists() and part.stat().st_size > size_bytes):
            part.unlink(missing_ok=True)
        digest = _digest(part) if part.exists() else hashlib.sha256()
        with part.open("ab") as output:
            progress(output.tell())
            for piece in self.store.read(self.key, output.tell()):
                output.write(piece)
                digest.update(piece)
                progress(len(piece))
        if sha256 is not None and digest.hexdigest() != sha256:
            part.unlink()
            raise IntegrityError(
                f"{self.key} isn't what was captured: its sha256 is {digest.hexdigest()}, "
                f"the manifest says {printable(sha256)}; {part} was removed, try once more"
            )
        part.replace(self.target)


def _digest(path: Path) -> hashlib._Hash:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            digest.update(piece)
    return digest
