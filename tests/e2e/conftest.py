"""Sidecars for the end-to-end tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from localpod.pod import LocalPod
from tests.e2e.sidecar_run import SidecarRun


@pytest.fixture
def sidecar(pod: LocalPod, tmp_path: Path) -> Callable[..., SidecarRun]:
    """Makes sidecars of the pod; keyword arguments are environment variables."""

    def make(**settings: str) -> SidecarRun:
        return SidecarRun(pod=pod, folder=tmp_path, settings=settings)

    return make


@pytest.fixture
def rightless() -> tuple[str, ...]:
    """A wrapper that takes every capability; the test is skipped where it isn't installed."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv isn't installed: it comes with util-linux")
    return (setpriv, "--bounding-set=-all", "--inh-caps=-all")
