"""Where things stand in a YAML text: the marks of the parser, and what they leave open. Pure.

The parser's end of a block collection lies behind the blank lines and comments that follow it, and an alias has the
marks of what it stands for; both are made good here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode

from sidecar.inject.model import ManifestError
from sidecar.inject.patch import split
from sidecar.inject.yaml_reader import Document, line_of

_ALIAS = re.compile(r"(?:[\s:,?-]|#[^\n]*)*\*[^\s,\[\]{}]+")
# Comments may have dashes in them; a list's own anchor and tag stand before its first.
_DASH = re.compile(r"(?:\s|#[^\n]*+|[&!]\S*+)*+-")
_BLANK_LINE_AT_END = re.compile(r"(\r?\n)\r?\n\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A value in a document: its node, and the key above it (None for a list's item)."""

    node: Node
    key: ScalarNode | None
    parent: Node | None


def find(document: Document, pointer: str) -> Place:
    """The place of a value that is there.

    Raises ManifestError where a change would reach further than it: what an alias stands for, or a merge key brings.
    """
    place = Place(node=document.root, key=None, parent=None)
    for part in split(pointer):
        node = place.node
        if isinstance(node, SequenceNode):
            place = Place(node=node.value[int(part)], key=None, parent=node)
        else:
            assert isinstance(node, MappingNode)  # noqa: S101 -- a pointer goes through collections only
            found = next(((key, child) for key, child in node.value if key.value == part), None)
            if found is None:
                raise ManifestError(
                    f"{part} comes by a merge key (<<): write it out where it is changed", line_of(node)
                )
            place = Place(node=found[1], key=found[0], parent=node)
        if id(place.node) in document.shared:
            line = line_of(place.key or node)
            raise ManifestError(f"{part} is shared by an alias, so a change would change both: write it out", line)
    return place


def start_of(node: Node) -> int:
    """The index of a node's first character."""
    return int(node.start_mark.index)


def line_start(text: str, index: int) -> int:
    """The index where the line of a character begins."""
    return text.rfind("\n", 0, index) + 1


def line_end(text: str, index: int) -> int:
    """The index of the line break that ends a line, or of the text's end."""
    end = text.find("\n", index)
    return len(text) if end < 0 else end


def column_of(text: str, index: int) -> int:
    """How far a character is from the beginning of its line."""
    return index - line_start(text, index)


def begins_line(text: str, index: int) -> bool:
    """Whether nothing but blanks is before a character in its line."""
    return not text[line_start(text, index) : index].strip()


def is_block(node: Node) -> bool:
    """Whether a collection is written by indentation, without braces."""
    return isinstance(node, CollectionNode) and not node.flow_style


def content_end(text: str, node: Node, after: int = 0) -> int:
    """The index behind a node's last character, without comments and line breaks that follow.

    ``after`` is an index before the node and behind what precedes it: a node that begins earlier is an alias.
    """
    if start_of(node) < after:
        alias = _ALIAS.match(text, after)
        if alias is None:
            raise ManifestError("an alias can't be found: write it out", text.count("\n", 0, after) + 1)
        return alias.end()
    end = int(node.end_mark.index)
    if isinstance(node, ScalarNode):
        return _end_of_block_scalar(text, start_of(node), end) if node.style in {"|", ">"} else end
    if not is_block(node):
        return end
    reached = start_of(node)
    for child in node.value[-2:]:
        reached = _end_of_child(text, child, reached)
    return reached


def behind_comments(text: str, index: int, column: int) -> int:
    """The end of the last comment that follows a line and stands further right than ``column``, else of the line.

    Such comments belong to what is above: a field of its that is switched off, say.
    """
    reached = end = line_end(text, index)
    while end < len(text):
        start = end + 1
        end = line_end(text, start)
        line = text[start:end]
        content = line.lstrip()
        if content.startswith("#") and len(line) - len(content) > column:
            reached = end
        elif content:
            break
    return reached


def _end_of_child(text: str, child: Node | tuple[Node, Node], after: int) -> int:
    if not isinstance(child, tuple):
        return content_end(text, child, after)
    key, value = child
    return content_end(text, value, int(key.end_mark.index))


def _end_of_block_scalar(text: str, start: int, end: int) -> int:
    """Before the last line break, and before blank lines unless they are kept (``|+``)."""
    lines = text[start:end]
    if "+" not in lines[:3]:
        while (blank := _BLANK_LINE_AT_END.search(lines)) is not None:
            lines = lines[: blank.end(1)]
    return start + len(lines.removesuffix("\n").removesuffix("\r"))


def dash_of(text: str, sequence: SequenceNode, index: int) -> int:
    """The index of the dash of an item of a block list."""
    reached = start_of(sequence)
    for item in sequence.value[:index]:
        reached = content_end(text, item, _dash_behind(text, reached, sequence) + 1)
    return _dash_behind(text, reached, sequence)


def _dash_behind(text: str, index: int, sequence: SequenceNode) -> int:
    found = _DASH.match(text, index)
    if found is None:
        raise ManifestError("a list's dashes can't be told apart here: write the list out", line_of(sequence))
    return found.end() - 1


def colon_after(text: str, key: Node) -> int:
    """The index of the colon behind a key."""
    colon = text.find(":", int(key.end_mark.index))
    if colon < 0:
        raise ManifestError(f"the key {key.value} has no colon: give it one", line_of(key))
    return colon
