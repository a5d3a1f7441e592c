"""Real programs for the end-to-end tests: a Go toolchain, the leaking example, a pod."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localpod import pod as localpod_pod
from localpod import toolchain
from localpod.pod import LocalPod
from localpod.toolchain import Toolchain
from tests.e2e.sidecar_run import PROJECT, SidecarRun


@pytest.fixture(scope="session")
def go() -> Toolchain:
    """Go, found or installed."""
    return toolchain.find()


@pytest.fixture(scope="session")
def leak(go: Toolchain) -> Path:
    """The example, built as its Dockerfile does."""
    return go.build(PROJECT / "examples/go-memory-leak")


@pytest.fixture
def pod() -> Iterator[LocalPod]:
    """A pod with nothing in it but its pause process."""
    reason = localpod_pod.unavailable()
    if reason is not None:
        pytest.skip(reason)
    with LocalPod() as pod:
        yield pod


@pytest.fixture
def sidecar(pod: LocalPod, tmp_path: Path) -> Callable[..., SidecarRun]:
    """Makes sidecars of the pod; keyword arguments are environment variables."""

    def make(**settings: str) -> SidecarRun:
        return SidecarRun(pod=pod, folder=tmp_path, settings=settings)

    return make
