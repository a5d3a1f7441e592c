"""What is believed of a version of Go that nobody has tried: only what proves to be so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.goheap import UnknownLayoutError, inline_trees, prepare, reader
from sidecar.goheap.layouts import GoLayout, layout_of
from sidecar.goheap.module import Module
from tests.goheap.programs import NEWEST, OLDEST, Cell, Running, build
from tests.goheap.test_reader import walked


def module_of(program: Running) -> Module:
    """Where a reader finds the program's tables."""
    with prepare(program.proc, program.pid) as read:
        _, found, _, _ = walked(read.snapshot())
    return found.module


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every version is unknown, and the trees of inlined calls are expected so far from their place."""
    far = [0]

    def moved(version: str) -> GoLayout:
        layout = layout_of(version)
        return replace(layout, known=False, gofunc_at=layout.gofunc_at + far[0])

    monkeypatch.setattr(reader, "layout_of", moved)
    return far


@pytest.mark.parametrize("cell", [NEWEST, OLDEST, Cell("1.27", "stripped-pie")], ids=str)
def test_trees_of_inlined_calls_are_found_wherever_they_are(
    cell: Cell, unknown: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the moduledata has where they were expected may be anything: names would be wrong and look right."""
    with Running(build(cell), rate=1) as program:
        program.tell("features", "gc")
        with monkeypatch.context() as known:
            known.setattr(reader, "layout_of", layout_of)
            module = module_of(program)
        for far in (0, -24, -16, -8, 8, 16):
            unknown[0] = far
            assert module_of(program) == module, far


def test_without_such_trees_nothing_is_read(unknown: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the profile over HTTP is all there is."""
    unknown[0] = 8
    monkeypatch.setattr(inline_trees, "_words", lambda *_: iter(()))
    with Running(build(NEWEST), rate=1) as program:
        program.tell("features", "gc")
        with pytest.raises(UnknownLayoutError, match="inlined calls"):
            prepare(Path("/proc"), program.pid)
