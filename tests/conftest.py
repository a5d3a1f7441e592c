"""Real programs for the tests: a Go toolchain, the leaking example, a pod."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from localpod import toolchain
from localpod.pod import LocalPod, unavailable

ROOT = Path(__file__).resolve().parents[1]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which of the two versions of cgroups nothing was tested on."""
    version, other = (2, 1) if Path("/sys/fs/cgroup/cgroup.controllers").exists() else (1, 2)
    hint = "; make test-v2 runs them, where vm-run is" if other == 2 else ""
    terminalreporter.write_line(
        f"On Linux {platform.release()} with cgroup v{version}; the tests were not run on cgroup v{other}{hint}."
    )


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
