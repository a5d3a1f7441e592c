"""Reads YAML manifests as values, keeping the nodes that know where in the text each value stands.

Only what Kubernetes takes for YAML is made of scalars: null, booleans, numbers and text; dates stay text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sidecar.inject.model import ManifestError

_TAG = "tag:yaml.org,2002:"
_TRUE = {"true", "yes", "on"}
_MOST_EXPANDED = 3_000_000
"""Values that a document may have with its aliases written out; a 10 MB manifest has about a million."""
_MOST_LEVELS = 300
"""How deep collections may stand in each other; a manifest's are some dozens deep at most."""
_TOO_DEEP = f"it is nested too deeply to be a manifest: stay below {_MOST_LEVELS} levels"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of a text. ``shared`` are the ids of nodes that aliases stand for as well."""

    root: Node
    value: object
    shared: frozenset[int]

    @property
    def line(self) -> int:
        """Where it begins, counted from 1."""
        return line_of(self.root)


def line_of(node: Node) -> int:
    """The line that a node begins in, counted from 1."""
    return int(node.start_mark.line) + 1


def decode(data: bytes) -> str:
    """The text of a file, with its byte order mark if it has one. Raises ManifestError for what isn't UTF-8."""
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        raise ManifestError("this is UTF-16: convert it to UTF-8, as by iconv -f UTF-16 -t UTF-8", 1)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ManifestError(f"byte 0x{data[error.start]:02x} isn't UTF-8: save the file as UTF-8", line) from None


def read_documents(text: str) -> Iterator[Document]:
    """The documents of a text that have pods in them, as far as the word ``containers`` tells.

    The others are checked to be YAML and Kubernetes objects, and left out. Raises ManifestError.
    """
    try:
        for root in _compose(text):
            yield from _of_interest(root, text)
    except RecursionError:
        raise ManifestError(_TOO_DEEP, 1) from None


def _of_interest(root: Node, text: str) -> Iterator[Document]:
    if isinstance(root, ScalarNode) and root.tag == f"{_TAG}null":
        return  # nothing but comments
    kind = "a list" if isinstance(root, SequenceNode) else "a single text"
    if not isinstance(root, MappingNode):
        raise ManifestError(f"a document that is {kind} is no Kubernetes manifest: give one with a kind", line_of(root))
    if not any(isinstance(key, ScalarNode) and key.value == "kind" for key, _ in root.value):
        raise ManifestError("a document without kind is no Kubernetes manifest: give one with a kind", line_of(root))
    if text.find("containers", root.start_mark.index, root.end_mark.index) < 0:
        return
    construction = _Construction()
    if construction.expanded(root) > _MOST_EXPANDED:
        raise ManifestError("its aliases expand to millions of values: write out what is meant", line_of(root))
    value = construction.value(root)
    yield Document(root=root, value=value, shared=frozenset(construction.shared))


# The C parser is ten times as fast; the resolver of both is the same.
_Fastest: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class _Loader(_Fastest):  # type: ignore[misc]  # one of two
    """Counts levels where the composer enters one: in C it calls itself for each until its stack is full."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._levels = 0

    def descend_resolver(self, parent: Node | None, _: object) -> None:
        self._levels += 1
        if self._levels > _MOST_LEVELS:
            raise ManifestError(_TOO_DEEP, line_of(parent) if parent is not None else 1)

    def ascend_resolver(self) -> None:
        self._levels -= 1


def _compose(text: str) -> Iterator[Node]:
    loader: Any = _Loader(text)
    try:
        while loader.check_node():
            yield loader.get_node()
    except yaml.MarkedYAMLError as error:
        raise _explained(error, text) from None
    except yaml.YAMLError as error:
        message = " ".join(str(error).replace('in "<unicode string>", ', "").split())
        raise ManifestError(f"not YAML: {message}", text.count("\n", 0, getattr(error, "position", 0)) + 1) from None
    finally:
        loader.dispose()


def _explained(error: yaml.MarkedYAMLError, text: str) -> ManifestError:
    marks = [mark for mark in (error.problem_mark, error.context_mark) if mark is not None]
    lines = text.splitlines()
    for mark in marks:
        line = lines[mark.line] if mark.line < len(lines) else ""
        if "\t" in line[: len(line) - len(line.lstrip())]:
            return ManifestError("it is indented with a tab: YAML wants spaces", mark.line + 1)
        if "{{" in line:
            message = "not YAML: it looks like a template: render it first, as by helm template"
            return ManifestError(message, mark.line + 1)
    message = f"not YAML: {', '.join(filter(None, (error.context, error.problem)))}"
    if "Unicode character escape" in (error.problem or ""):
        # JSON has characters above U+FFFF as two escapes; libyaml knows none of the pair.
        message += r": write the character itself instead of \ud83d and the like, as jq does"
    return ManifestError(message, marks[0].line + 1 if marks else 1)


@dataclass(slots=True)
class _Construction:
    """Makes values of nodes; what aliases share is shared in the values too."""

    shared: set[int] = field(default_factory=set)
    _values: dict[int, object] = field(default_factory=dict)
    _sizes: dict[int, int] = field(default_factory=dict)
    _levels: dict[int, int] = field(default_factory=dict)

    def expanded(self, node: Node) -> int:
        """How many values there are below a node with its aliases written out.

        Raises ManifestError for a cycle, and for more levels than there may be.
        """
        if isinstance(node, ScalarNode):
            return 1
        known = self._sizes.get(id(node))
        if known is not None:
            if known == 0:
                raise ManifestError(
                    "an alias stands inside of what it stands for: write out what is meant", line_of(node)
                )
            return known
        self._sizes[id(node)] = 0
        children = [child for pair in node.value for child in (pair if isinstance(pair, tuple) else (pair,))]
        size = self._sizes[id(node)] = 1 + sum(map(self.expanded, children))
        # Aliases can stack what isn't deep in the text.
        levels = self._levels[id(node)] = 1 + max((self._levels.get(id(child), 0) for child in children), default=0)
        if levels > _MOST_LEVELS:
            raise ManifestError(_TOO_DEEP, line_of(node))
        return size

    def value(self, node: Node) -> object:
        """The value of a node. Raises ManifestError for a key that is there twice or is no text."""
        if id(node) in self._values:
            self.shared.add(id(node))
            return self._values[id(node)]
        value: object
        if isinstance(node, ScalarNode):
            value = _scalar(node)
        elif isinstance(node, SequenceNode):
            value = [self.value(item) for item in node.value]
        else:
            value = self._mapping(node)
        self._values[id(node)] = value
        return value

    def _mapping(self, node: Node) -> dict[str, object]:
        own: dict[str, object] = {}
        merged: dict[str, object] = {}
        for key, child in node.value:
            if not isinstance(key, ScalarNode):
                message = "a key that is no text: is this a template? Render it first, as by helm template"
                raise ManifestError(message, line_of(key))
            value = self.value(child)
            if key.tag == f"{_TAG}merge":
                for source in value if isinstance(value, list) else [value]:
                    merged = (source if isinstance(source, dict) else {}) | merged
            elif key.value in own:
                raise ManifestError(f"the key {key.value} is there twice in one mapping: remove one", line_of(key))
            else:
                own[key.value] = value
        return merged | own


def _scalar(node: ScalarNode) -> object:
    text: str = node.value
    make = _SCALARS.get(node.tag)
    if make is None:
        return text
    try:
        return make(text)
    except ValueError:
        return text  # a base of 60, say; nothing that a manifest's numbers are written in


def _integer(text: str) -> int:
    digits = text.lstrip("+-")
    is_octal = digits.startswith("0") and digits.isdecimal() and len(digits) > 1
    return int(text, 8) if is_octal else int(text, 0)


_SCALARS: dict[str, Callable[[str], object]] = {
    f"{_TAG}null": lambda _: None,
    f"{_TAG}bool": lambda text: text.lower() in _TRUE,
    f"{_TAG}int": _integer,
    f"{_TAG}float": lambda text: float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan")),
}
