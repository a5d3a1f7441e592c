"""What the README quotes for people in trouble is what they will read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]

# Where something else stands each time: what is left out, numbers, and what follows a colon.
_VARIABLE = re.compile(r"\.\.\.|\d+|:")
_SHORTEST = 3


def said() -> str:
    """Every text in the sidecar's source but the docstrings."""
    texts = []
    for path in (PROJECT / "sidecar").rglob("*.py"):
        tree = ast.parse(path.read_text())
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts += [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        ]
    return "\n".join(texts)


def quoted() -> Iterator[str]:
    """The texts in the first column of the table of symptoms."""
    section = (PROJECT / "README.md").read_text().split("\n## When something is wrong\n", 1)[1].split("\n## ", 1)[0]
    for row in re.findall(r"^\| (.*?) \|", section, re.MULTILINE):
        yield from re.findall(r"`([^`]+)`", row)


def test_every_symptom_is_said_somewhere() -> None:
    """Whoever searches the log for a row of the table finds it."""
    texts = said()
    symptoms = list(quoted())
    assert len(symptoms) > 10
    for symptom in symptoms:
        pieces = [piece.strip() for piece in _VARIABLE.split(symptom)]
        whole = [piece for piece in pieces if len(piece) >= _SHORTEST]
        assert whole, symptom
        assert [piece for piece in whole if piece not in texts] == [], symptom
