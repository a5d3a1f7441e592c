"""Builds and installs what the tests do, so that they find it: ``python -m tests.programs``.

For a machine without a network, or one whose system calls are slow. What is forgotten here is built by the test that
needs it; but for the images of the pods, where podman is, as these can't be built there.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from localpod import podman, toolchain
from tests.goheap.programs import CELLS, NEWEST, OLDEST, UNNAMED, build
from tests.goheap.test_symbols import STATIC
from tests.pod.conftest import build_images
from tests.s3_servers.swift import SwiftUnavailableError, install

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("benchmarks", "examples", "tests")


def main() -> None:
    """Build every module of the repository, and the programs of `tests.goheap`."""
    go = toolchain.find()
    for module in sorted(module for place in PLACES for module in (ROOT / place).rglob("go.mod")):
        go.build(module.parent)
    go.build(ROOT / "examples" / "go-memory-leak", flags=("-ldflags=-s -w",))
    go.pprof()
    for cell in {*CELLS, *STATIC, NEWEST, OLDEST, UNNAMED}:
        build(cell)
    with contextlib.suppress(SwiftUnavailableError):  # the tests that need it say so
        install()
    if podman.unavailable() is None:
        build_images(podman.Podman(toolchain.DEFAULT_CACHE / "podman"), go)


if __name__ == "__main__":
    main()
