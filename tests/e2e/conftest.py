"""Sidecars for the end-to-end tests."""

from __future__ import annotations

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
