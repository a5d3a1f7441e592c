"""Diffs of long texts: patch takes them, and their time grows with the text."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.inject.hunks import unified_diff

texts = st.lists(st.sampled_from(["a", "b", "- c", "", "\u2028", "x\r"]), max_size=30).map("\n".join)


def patched(before: str, diff: str) -> str:
    """The text with a diff applied, each line where the hunk says it is and as the hunk says it was."""
    old = re.findall(r"[^\n]*\n|[^\n]+", before)
    made: list[str] = []
    at = 0
    for line in re.findall(r"[^\n\0]*[\n\0]", diff.replace("\n\\ No newline at end of file\n", "\0"))[2:]:
        mark, content = line[0], line[1:].removesuffix("\0")
        if mark == "@":
            start, length, new_start, new_length = _extent(line)
            made += old[at : start - (length > 0)]
            at = start - (length > 0)
            assert len(made) == new_start - (new_length > 0)
        if mark in " -":
            assert old[at] == content
            at += 1
        if mark in " +":
            made.append(content)
    return "".join(made + old[at:])


def _extent(line: str) -> tuple[int, ...]:
    found = re.fullmatch(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@\n", line)
    assert found is not None
    return tuple(int(number or 1) for number in found.groups())


def diff_of(before: str, after: str) -> str:
    """As it is printed."""
    return "".join(f"{line}\n" for line in unified_diff(before, after, "x"))


@settings(max_examples=300)
@given(texts, texts)
def test_applied_it_gives_the_other_text(before: str, after: str) -> None:
    """Also without a last line break, from nothing and to nothing, and with line breaks that only YAML knows."""
    diff = diff_of(before, after)
    assert patched(before, diff) == after
    assert bool(diff) == (before != after)


def test_patch_takes_it(tmp_path: Path) -> None:
    """The program itself, for a text of many hunks of all kinds."""
    if shutil.which("patch") is None:
        pytest.skip("patch isn't on PATH")
    chance = random.Random(7)
    before = [f"{chance.randrange(40)}\n" for _ in range(5000)]
    after = [line for line in before if chance.random() > 0.01]
    for _ in range(40):
        at = chance.randrange(len(after))
        after[at:at] = [f"new {chance.randrange(9)}\n"] * chance.randrange(1, 300)
    path = tmp_path / "x"
    path.write_text("".join(before))
    diff = diff_of("".join(before), "".join(after))
    subprocess.run(["patch", "-s", "--fuzz=0", str(path)], input=diff, text=True, check=True)
    assert path.read_text() == "".join(after)
    assert len(diff) < 3 * (len("".join(after)) - len("".join(before)))


def test_an_unchanged_line_between_two_changes_is_kept() -> None:
    """A change is no larger than it has to be."""
    lines = diff_of("a\nb\nc\nd\ne\nf\n", "a\nB\nc\nD\ne\nf\n").splitlines()
    assert lines[2:] == ["@@ -1,6 +1,6 @@", " a", "-b", "+B", " c", "-d", "+D", " e", " f"]


def test_the_time_grows_with_the_text() -> None:
    """Eight times the pods take about eight times as long, not sixty-four."""
    pod = "kind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: app\n---\n"
    sidecar = "".join(f"    line {index}\n" for index in range(60))

    def taken_s(pods: int) -> float:
        before, after = pod * pods, pod.replace("---\n", f"{sidecar}---\n") * pods
        return _least_s(lambda: diff_of(before, after))

    assert taken_s(1600) < 24 * taken_s(200)


def _least_s(work: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)
