"""Writes values as pieces of YAML that fit into what is around them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# Plain text that no YAML parser, of 1.1 or 1.2, takes for anything but text, also between braces.
_SIZE = r"\d+(?:m|[KMGT]i|[KMGT]iB)"
_PLAIN = re.compile(rf"[A-Za-z/](?:[A-Za-z0-9_./@+-]|:(?=[A-Za-z0-9_./@+-]))*|{_SIZE}", re.ASCII)
_PLAIN_IN_FLOW = re.compile(rf"[A-Za-z/][A-Za-z0-9_./@+-]*|{_SIZE}", re.ASCII)
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStyle:
    """``step`` is how far a mapping is indented below its key, ``list_step`` a list, in columns."""

    step: int = 2
    list_step: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowStyle:
    """``is_json``: keys and texts are quoted. ``indent`` breaks lines, each level deeper by it; None for one line."""

    is_json: bool = False
    is_tight: bool = False
    indent: str | None = None


def entry_lines(key: str, value: object, column: int, style: BlockStyle) -> list[str]:
    """The lines of a mapping's entry whose key stands in a column (from 0), in block style.

    >>> entry_lines("volumes", [{"name": "a", "emptyDir": {}}], 2, BlockStyle())
    ['  volumes:', '    - name: a', '      emptyDir: {}']
    """
    start = f"{' ' * column}{scalar(key)}:"
    if isinstance(value, Mapping | list) and value:
        return [start, *value_lines(value, column, style)]
    return [f"{start} {_on_a_line(value)}"]


def value_lines(value: object, column: int, style: BlockStyle) -> list[str]:
    """The lines of a mapping or list that has something in it, below a key that stands in a column."""
    if isinstance(value, Mapping):
        return [line for key, each in value.items() for line in entry_lines(key, each, column + style.step, style)]
    assert isinstance(value, list)  # noqa: S101 -- scalars stand on their key's line
    return [line for each in value for line in item_lines(each, column + style.list_step, style)]


def item_lines(value: object, column: int, style: BlockStyle) -> list[str]:
    """The lines of a list's item whose dash stands in a column."""
    dash = f"{' ' * column}- "
    if isinstance(value, Mapping) and value:
        lines = [line for key, each in value.items() for line in entry_lines(key, each, column + 2, style)]
        return [dash + lines[0].lstrip(), *lines[1:]]
    return [dash + _on_a_line(value)]


def flow(value: object, style: FlowStyle, prefix: str = "") -> str:
    """A value between braces, or a scalar. ``prefix`` is the indentation of the line that it begins in.

    >>> flow({"a": ["x", 1, "1"]}, FlowStyle()), flow({"a": ["x"]}, FlowStyle(is_json=True, is_tight=True))
    ('{a: [x, 1, "1"]}', '{"a":["x"]}')
    """
    if style.is_json:
        separators = (",", ":") if style.is_tight else (", " if style.indent is None else ",", ": ")
        text = json.dumps(value, ensure_ascii=False, indent=style.indent, separators=separators)
        return text.replace("\n", f"\n{prefix}")
    if isinstance(value, Mapping):
        return "{" + ", ".join(flow_entries(value)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(each, style) for each in value) + "]"
    return scalar(value, in_flow=True)


def flow_entries(value: Mapping[str, object]) -> Iterator[str]:
    """A mapping's entries as they stand between braces."""
    for key, each in value.items():
        yield f"{scalar(key, in_flow=True)}: {flow(each, FlowStyle())}"


def _on_a_line(value: object) -> str:
    return flow(value, FlowStyle()) if isinstance(value, Mapping | list) else scalar(value)


def scalar(value: object, *, in_flow: bool = False) -> str:
    r"""A scalar; text is quoted where it would be taken for something else.

    >>> scalar("a:1"), scalar("95"), scalar("no"), scalar(True), scalar('{"a":1}')
    ('a:1', '"95"', '"no"', 'true', '\'{"a":1}\'')
    """
    if not isinstance(value, str):
        return json.dumps(value)
    if (_PLAIN_IN_FLOW if in_flow else _PLAIN).fullmatch(value) and value.lower() not in _WORDS:
        return value
    if '"' in value and "'" not in value and value.isprintable():
        return f"'{value}'"
    return json.dumps(value, ensure_ascii=not value.isprintable())
