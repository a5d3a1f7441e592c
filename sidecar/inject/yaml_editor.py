"""Carries out JSON patches on YAML text by splicing at the places that change; everything else stays byte for byte.

What is added is written as its neighbours are: block or flow style, indentation, JSON. An addition and its removal undo
each other exactly. The result is read again and compared with the patch applied to the values, so that a text which
this doesn't understand ends in an error and never in a wrong manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sidecar.inject.flow_edits import inserted_in_flow, removed_from_flow, style_at
from sidecar.inject.model import ManifestError, Operation
from sidecar.inject.patch import apply, split
from sidecar.inject.splices import Splice, join_splices
from sidecar.inject.yaml_fragments import BlockStyle, entry_lines, flow, item_lines, value_lines
from sidecar.inject.yaml_places import (
    Place,
    begins_line,
    behind_comments,
    colon_after,
    column_of,
    content_end,
    dash_of,
    find,
    is_block,
    line_end,
    line_start,
    start_of,
)
from sidecar.inject.yaml_reader import Document, read_documents


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Operations on one document, each path as the document is before all of them."""

    document: Document
    operations: Sequence[Operation]


def edit_text(text: str, edits: Sequence[Edit]) -> str:
    """The text with every edit carried out. ``text`` has no byte order mark.

    Raises ManifestError where a change would reach further than meant, or can't be made in this text.
    """
    if text.endswith("\r"):
        # It ends the last line for YAML; what is written behind it would make it a part of another line break.
        message = "it ends in half a line break (a carriage return alone): end it with a line feed, and try again"
        raise ManifestError(message, text.count("\n") + 1)
    splices = [splice for edit in edits for splice in _Editor(text, edit.document).splices(edit.operations)]
    edited = join_splices(text, splices)
    _verify(edited, edits, has_last_break=text.endswith("\n"))
    return edited


def _verify(edited: str, edits: Sequence[Edit], *, has_last_break: bool) -> None:
    waiting = list(reversed(edits))
    try:
        # In order; documents without an edit are passed over, as they weren't touched.
        for document in read_documents(edited):
            if waiting and document.value == apply(waiting[-1].document.value, waiting[-1].operations):
                waiting.pop()
    except ManifestError as error:
        message = _unexpected(str(error), has_last_break=has_last_break)
        raise ManifestError(message, edits[0].document.line) from None
    if waiting:
        message = _unexpected("the result isn't what was planned", has_last_break=has_last_break)
        raise ManifestError(message, waiting[-1].document.line)


def _unexpected(what: str, *, has_last_break: bool) -> str:
    plainly = "write the object in plain block style, as kubectl get -o yaml does"
    remedy = plainly if has_last_break else f"end the file with a line break; if that doesn't help, {plainly}"
    return f"this YAML can't be edited in place ({what}), so nothing is written: {remedy}"


@dataclass(slots=True)
class _Editor:
    text: str
    document: Document
    _filled: set[int] = field(default_factory=set)

    def splices(self, operations: Sequence[Operation]) -> Iterator[Splice]:
        """What the operations change; removals are taken together, as neighbours decide what remains."""
        removals: dict[str, list[Operation]] = {}
        # Where a collection ends with the last of its own, what is added to the inner one comes first.
        for operation in sorted(operations, key=_depth, reverse=True):
            parent, _, _ = operation.path.rpartition("/")
            if operation.op == "remove":
                removals.setdefault(parent, []).append(operation)
            elif operation.op == "replace":
                yield from self._replaced(operation)
            else:
                yield from self._added(parent, operation)
        for parent, group in removals.items():
            yield from self._removed(parent, [split(operation.path)[-1] for operation in group])

    def _added(self, parent: str, operation: Operation) -> Iterator[Splice]:
        place = find(self.document, parent)
        node, key = place.node, split(operation.path)[-1]
        if not is_block(node) or not node.value:
            root, is_first = self._flow_root(), id(node) not in self._filled
            self._filled.add(id(node))
            yield inserted_in_flow(self.text, node, key, operation.value, root=root, is_first=is_first)
        elif isinstance(node, SequenceNode):
            column = column_of(self.text, dash_of(self.text, node, 0))
            end = behind_comments(self.text, content_end(self.text, node), column)
            yield self._below(end, item_lines(operation.value, column, self._style(node)))
        else:
            column = column_of(self.text, start_of(node.value[0][0]))
            end = behind_comments(self.text, content_end(self.text, node), column)
            yield self._below(end, entry_lines(key, operation.value, column, self._style(node)))

    def _replaced(self, operation: Operation) -> Iterator[Splice]:
        """Something empty by a value, or the reverse: all that injections and removals replace."""
        place = find(self.document, operation.path)
        assert place.key is not None  # noqa: S101 -- only keys' values are replaced
        if operation.value in (None, [], {}):
            yield from self._emptied(place, operation.spelling or "")
            return
        after_colon = colon_after(self.text, place.key) + 1
        value_end = max(after_colon, content_end(self.text, place.node, after_colon))
        if place.parent is None or not is_block(place.parent):
            style = style_at(self.text, place.parent, self._flow_root())
            yield Splice(after_colon, value_end, " " * (not style.is_tight) + flow(operation.value, style))
            return
        yield Splice(after_colon, value_end, "")
        column = column_of(self.text, start_of(place.key))
        if isinstance(operation.value, Mapping | list) and operation.value:
            yield self._below(value_end, value_lines(operation.value, column, self._style(place.parent)))
        else:
            yield Splice(value_end, value_end, f" {flow(operation.value, style_at(self.text, None, None))}")

    def _emptied(self, place: Place, spelling: str) -> Iterator[Splice]:
        assert place.key is not None  # noqa: S101 -- see above
        after_colon = colon_after(self.text, place.key) + 1
        end = content_end(self.text, place.node, after_colon)
        if is_block(place.node) and place.node.value:
            yield Splice(after_colon, after_colon, spelling)
            yield self._lines(start_of(_first(place.node)), end)
        else:
            yield Splice(after_colon, end, spelling)

    def _removed(self, parent: str, keys: Sequence[str]) -> Iterator[Splice]:
        place = find(self.document, parent)
        node = place.node
        if isinstance(node, SequenceNode):
            gone = sorted(int(key) for key in keys)
        else:
            gone = [index for index, (key, _) in enumerate(node.value) if key.value in keys]
        if not is_block(node):
            yield from removed_from_flow(self.text, node, gone)
        elif len(gone) == len(node.value) and place.key is not None:
            yield from self._emptied(place, " []" if isinstance(node, SequenceNode) else " {}")
        else:
            for index in gone:
                yield self._without(node, index)

    def _without(self, node: Node, index: int) -> Splice:
        """An entry of a block collection with its lines; of one that stands behind a dash, what follows moves up."""
        if isinstance(node, SequenceNode):
            start = dash_of(self.text, node, index)
            return self._lines(start, content_end(self.text, node.value[index]))
        key, value = node.value[index]
        start = start_of(key)
        end = content_end(self.text, value, colon_after(self.text, key))
        if begins_line(self.text, start):
            return self._lines(start, end)
        following = line_end(self.text, end) + 1
        return Splice(start, following + column_of(self.text, start), "")

    def _below(self, index: int, lines: Sequence[str]) -> Splice:
        """New lines below the one that a character is in."""
        end = line_end(self.text, index)
        newline = self._newline(index)
        block = newline.join(lines)
        if end == len(self.text):
            return Splice(end, end, f"{newline}{block}")
        return Splice(end + 1, end + 1, f"{block}{newline}")

    def _lines(self, start: int, end: int) -> Splice:
        """The lines from one character's to another's go, with the line break that came with them."""
        first, last = line_start(self.text, start), line_end(self.text, end)
        if self.text.endswith("\n") or first == 0:
            return Splice(first, min(last + 1, len(self.text)), "")
        # Without a line break at the end of the text, it is the one before that was added.
        last -= 1 if last < len(self.text) and self.text[last - 1] == "\r" else 0
        return Splice(first - (2 if self.text.endswith("\r\n", 0, first) else 1), last, "")

    def _newline(self, index: int) -> str:
        """The line break that is used where a character is."""
        end = line_end(self.text, index)
        if end == len(self.text):
            end = self.text.rfind("\n")
        return "\r\n" if end > 0 and self.text[end - 1] == "\r" else "\n"

    def _style(self, near: Node) -> BlockStyle:
        """The indentation of the nearest mapping that shows one, from the top: a file is mostly of one hand."""
        step, list_step = _steps(self.text, near)
        if step is None or list_step is None:
            general_step, general_list_step = _steps(self.text, self.document.root)
            step = step or general_step or 2
            list_step = general_list_step if list_step is None else list_step
        return BlockStyle(step=step, list_step=step if list_step is None else list_step)

    def _flow_root(self) -> Node | None:
        root = self.document.root
        return root if not is_block(root) else None


def _depth(operation: Operation) -> int:
    """How deep what an operation writes is in the document; what fills a key is below that."""
    return operation.path.count("/") + (operation.op == "replace")


def _first(node: Node) -> Node:
    child = node.value[0]
    first: Node = child[0] if isinstance(child, tuple) else child
    return first


def _steps(text: str, node: Node) -> tuple[int | None, int | None]:
    """How far mappings and lists are indented below a node, by the first of each in block style."""
    step: int | None = None
    list_step: int | None = None
    waiting = [node]
    for _ in range(_MOST_SEARCHED):
        if not waiting or (step is not None and list_step is not None):
            break
        current = waiting.pop(0)
        if isinstance(current, SequenceNode):
            waiting += current.value
            continue
        for key, value in current.value if isinstance(current, MappingNode) else ():
            if isinstance(value, ScalarNode) or not is_block(value) or start_of(value) < start_of(key):
                continue
            offset = column_of(text, start_of(_first(value))) - column_of(text, start_of(key))
            if isinstance(value, MappingNode):
                step = step or offset
            elif list_step is None:
                list_step = column_of(text, dash_of(text, value, 0)) - column_of(text, start_of(key))
            waiting.append(value)
    return step, list_step


_MOST_SEARCHED = 200  # nodes; a pod's spec has one of each kind among its first
