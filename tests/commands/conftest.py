from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from sidecar import cli
from tests.s3_servers import S3Endpoint
from tests.s3_servers.moto import moto_server

Files = dict[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a command line did."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process, with its real error handling."""

    def run_it(*arguments: str | Path) -> Ran:
        code = cli._run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code=code, out=captured.out, err=captured.err)

    return run_it


@pytest.fixture
def dump_dir(tmp_path: Path) -> Path:
    """A directory of dumps."""
    path = tmp_path / "dumps"
    path.mkdir()
    return path


@pytest.fixture
def moto() -> Iterator[S3Endpoint]:
    """An S3 of the test's own."""
    with moto_server() as endpoint:
        yield endpoint


def write_dump(dump_dir: Path, key: str, files: Files, *, manifest: bool = True) -> None:
    """Lay a dump into a directory, with a manifest that has the checksums of ``files``."""
    folder = dump_dir / key
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    if manifest:
        (folder / "manifest.json").write_bytes(manifest_of(files))


def manifest_of(files: Files) -> bytes:
    """The part of a manifest that a download needs."""
    profiles = [{"name": name, "sha256": sha256(content).hexdigest()} for name, content in files.items()]
    return json.dumps({"schema": "oom-heap-dumper/manifest/v1", "profiles": profiles}).encode()
