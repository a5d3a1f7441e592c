"""Writes manifests as people and programs do: block and flow style, indentation, comments, quotes, line breaks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import yaml
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

Object = Mapping[str, object]

COMMENTS = ("# note", "#", "# - name: oom-heap-dumper", "#  key: value  ", "# é 😀", "#\t[{")
_BLANKS = ("", "  ", "\t")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand:
    """How one author writes."""

    step: int
    list_step: int
    dash: str
    is_commenting: bool
    flow_below: int


hands = st.builds(
    Hand,
    step=st.integers(1, 4),
    list_step=st.sampled_from([0, 2, 3]),
    dash=st.sampled_from(["- ", "- ", "-   "]),
    is_commenting=st.booleans(),
    flow_below=st.sampled_from([2, 4, 6, 99]),
)


@st.composite
def spelled(draw: DrawFn, value: Object) -> str:
    """A document's text, ended by a line break, that means the value."""
    if draw(st.integers(0, 5)) == 0:
        indent = draw(st.sampled_from([None, 2, 4, "\t"]))
        separators = draw(st.sampled_from([None, (",", ":")])) if indent is None else None
        text = json.dumps(value, indent=indent, separators=separators, ensure_ascii=False) + "\n"
    else:
        text = "\n".join(_Writer(draw, draw(hands)).mapping(value, 0, 0)) + "\n"
    return text if draw(st.integers(0, 3)) else text.replace("\n", "\r\n")


@dataclass(slots=True)
class _Writer:
    draw: DrawFn
    hand: Hand

    def mapping(self, value: Object, column: int, depth: int) -> list[str]:
        lines: list[str] = []
        for key, each in value.items():
            lines += [*self.between(column), *self.entry(key, each, column, depth)]
        return lines

    def entry(self, key: str, value: object, column: int, depth: int) -> list[str]:
        start = f"{' ' * column}{self.scalar(key)}:"
        if not isinstance(value, dict | list) or not value or self.is_flow(depth):
            return self.short(start, value, column)
        inner = self.listing(value, column, depth) if isinstance(value, list) else None
        return [
            start + self.remark(),
            *(inner or self.mapping(self.as_object(value), column + self.hand.step, depth + 1)),
        ]

    def listing(self, value: list[object], column: int, depth: int) -> list[str]:
        indent = column + self.hand.list_step
        lines: list[str] = []
        for each in value:
            lines += self.between(indent)
            dash = f"{' ' * indent}{self.hand.dash}"
            if isinstance(each, dict) and each and not self.is_flow(depth):
                inner = self.mapping(each, len(dash), depth + 1)
                while inner[0].strip()[:1] in {"", "#"}:
                    del inner[0]
                lines += [dash + inner[0].lstrip(" "), *inner[1:]]
            else:
                lines.append(f"{dash}{self.flow(each)}{self.remark()}")
        return lines

    def short(self, start: str, value: object, column: int) -> list[str]:
        """An entry on one line, or with its value below; a text perhaps as a block scalar."""
        if value is None:
            return [start + self.draw(st.sampled_from(["", " ", " null", " ~", "   Null"])) + self.remark()]
        if isinstance(value, str) and value.endswith("\n") and value.strip():
            chomping = "+" if value.endswith("\n\n") else self.draw(st.sampled_from(["", "+"]))
            style = f"{start} |{chomping}"
            indent = " " * (column + self.hand.step)
            return [style, *(f"{indent}{line}" if line else "" for line in value[:-1].split("\n"))]
        if isinstance(value, dict | list) and self.draw(st.integers(0, 3)) == 0:
            return [start + self.remark(), " " * (column + self.hand.step) + self.flow(value) + self.remark()]
        return [f"{start} {self.flow(value)}{self.remark()}"]

    def flow(self, value: object) -> str:
        inner, comma = self.draw(st.sampled_from([("", ", "), (" ", ", "), ("", ","), ("", " , ")]))
        if isinstance(value, dict):
            entries = comma.join(f"{self.scalar(key)}: {self.flow(each)}" for key, each in value.items())
            return f"{{{inner}{entries}{inner}}}"
        if isinstance(value, list):
            return f"[{inner}{comma.join(map(self.flow, value))}{inner}]"
        return self.scalar(value)

    def scalar(self, value: object) -> str:
        if not isinstance(value, str):
            return json.dumps(value)
        styles = [json.dumps(value, ensure_ascii=False)]
        styles += [f"'{value}'"] if value.isprintable() and "'" not in value else []
        styles += [value] * 2 if _is_plain(value) else []
        return self.draw(st.sampled_from(styles))

    def between(self, column: int) -> list[str]:
        if not self.hand.is_commenting or self.draw(st.integers(0, 7)):
            return []
        comment = self.draw(st.sampled_from(COMMENTS))
        return [
            " " * self.draw(st.sampled_from([0, column, column + 3])) + comment,
            *self.draw(st.sampled_from([[], [""]])),
        ]

    def remark(self) -> str:
        if not self.hand.is_commenting or self.draw(st.integers(0, 5)):
            return ""
        return self.draw(st.sampled_from([" ", "   "])) + self.draw(st.sampled_from(COMMENTS))

    def is_flow(self, depth: int) -> bool:
        return depth >= self.hand.flow_below and self.draw(st.booleans())

    @staticmethod
    def as_object(value: object) -> Object:
        assert isinstance(value, dict)
        return value


def _is_plain(text: str) -> bool:
    """Whether a text means itself without quotes, in any place."""
    if not text.isascii() or any(char in text for char in "{}[],#&*!|>%@`\"'?:\n"):
        return False
    try:
        return bool(yaml.safe_load(f"[{text}]") == [text]) and text == text.strip()
    except yaml.YAMLError:
        return False
