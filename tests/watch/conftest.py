from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest


@pytest.fixture
def program() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until the end of the test, or as long as the test lets it."""
    with subprocess.Popen(["sleep", "600"]) as running:
        yield running
        running.kill()
