from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.stores import StoreSettings
from tests.s3_servers import S3Endpoint
from tests.s3_servers.moto import moto_server
from tests.s3_servers.swift import SwiftServer, swift_or_skip

MakeSettings = Callable[..., StoreSettings]


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Endpoint]:
    """A quick S3 that checks no signature."""
    with moto_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwiftServer]:
    """A real S3 that does."""
    with swift_or_skip(tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture
def make_settings(tmp_path: Path) -> MakeSettings:
    """Settings of a store; without a bucket it is a directory of the test's own."""

    def make(**changes: object) -> StoreSettings:
        defaults: dict[str, object] = {
            "bucket": None,
            "prefix": "",
            "directory": tmp_path / "dumps",
            "directory_size_bytes": 64 << 20,
        }
        return StoreSettings(**(defaults | changes))  # type: ignore[arg-type]  # a test names fields as it needs them

    return make
