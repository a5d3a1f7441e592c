"""Edits of collections between braces: YAML's flow style, and JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sidecar.inject.splices import Splice
from sidecar.inject.yaml_fragments import FlowStyle, flow, scalar
from sidecar.inject.yaml_places import begins_line, colon_after, content_end, line_start, start_of


def style_at(text: str, node: Node | None, root: Node | None) -> FlowStyle:
    """How to write a value into a collection. ``root`` is the document's if that is between braces too."""
    if not isinstance(root, MappingNode) or not root.value or root.value[0][0].style != '"':
        return FlowStyle()
    is_tight = text[colon_after(text, root.value[0][0]) + 1] not in " \t\r\n"
    return FlowStyle(is_json=True, is_tight=is_tight, indent=_indent(text, root) if node is not None else None)


def inserted_in_flow(
    text: str, node: Node, key: str, value: object, *, root: Node | None, is_first: bool = True
) -> Splice:
    """An entry (or item, where ``key`` is ``-``) behind the last one, on a line of its own if that one has one.

    ``is_first`` is False for one that comes behind another insertion into the same collection.
    """
    style = style_at(text, node, root)
    children = _extents(text, node)
    if not children:
        at = text.index("{" if isinstance(node, MappingNode) else "[", start_of(node)) + 1
        flat = FlowStyle(is_json=style.is_json, is_tight=style.is_tight)
        return Splice(at, at, ("" if is_first else ", ") + _entry(node, key, value, flat, ""))
    start, end = children[-1]
    if not begins_line(text, start):
        flat = FlowStyle(is_json=style.is_json, is_tight=style.is_tight)
        return Splice(end, end, ("," if style.is_tight else ", ") + _entry(node, key, value, flat, ""))
    prefix = text[line_start(text, start) : start]
    newline = "\r\n" if text[: line_start(text, start)].endswith("\r\n") else "\n"
    entry = _entry(node, key, value, style, prefix)
    return Splice(end, end, f",\n{prefix}{entry}".replace("\n", newline))


def removed_from_flow(text: str, node: Node, gone: Sequence[int]) -> Iterator[Splice]:
    """Entries with the commas that joined them to the rest."""
    extents = _extents(text, node)
    kept = [index for index in range(len(extents)) if index not in gone]
    for index in gone:
        before = [each for each in kept if each < index]
        if before or (index > 0 and not kept):
            yield Splice(extents[index - 1][1], extents[index][1], "")
        elif kept:
            yield Splice(extents[index][0], extents[index + 1][0], "")
        else:
            yield Splice(*extents[index], "")


def _entry(node: Node, key: str, value: object, style: FlowStyle, prefix: str) -> str:
    written = flow(value, style, prefix)
    if not isinstance(node, MappingNode):
        return written
    name = flow(key, style) if style.is_json else scalar(key, in_flow=True)
    return f"{name}:{'' if style.is_tight else ' '}{written}"


def _extents(text: str, node: Node) -> list[tuple[int, int]]:
    """Where each entry begins and ends."""
    found: list[tuple[int, int]] = []
    reached = start_of(node)
    for child in node.value if isinstance(node, MappingNode | SequenceNode) else ():
        if isinstance(child, tuple):
            key, value = child
            end = max(int(key.end_mark.index), content_end(text, value, int(key.end_mark.index)))
            found.append((start_of(key), end))
        else:
            end = content_end(text, child, reached)
            found.append((max(start_of(child), reached), end))
        reached = found[-1][1]
    return found


def _indent(text: str, root: MappingNode) -> str | None:
    """What a level is indented by, as the first entry of the document is; None where that stands beside its brace."""
    start = start_of(root.value[0][0])
    if not begins_line(text, start) or isinstance(root, ScalarNode):
        return None
    outer = text[line_start(text, start_of(root)) : start_of(root)]
    return text[line_start(text, start) : start].removeprefix(outer if not outer.strip() else "") or None
