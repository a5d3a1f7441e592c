"""Real programs for the tests: a Go toolchain, the leaking example, a pod."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from localpod import toolchain
from localpod.pod import LocalPod, unavailable

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def go() -> toolchain.Toolchain:
    """A Go toolchain, from PATH or installed into the repository's cache."""
    return toolchain.find()


@pytest.fixture(scope="session")
def leak(go: toolchain.Toolchain) -> Path:
    """The example of a program that leaks, built."""
    return go.build(ROOT / "examples" / "go-memory-leak")


@pytest.fixture
def pod() -> Iterator[LocalPod]:
    """An empty pod; the test is skipped where none can be made."""
    reason = unavailable()
    if reason is not None:
        pytest.skip(f"no pods here: {reason}")
    with LocalPod() as running:
        yield running
