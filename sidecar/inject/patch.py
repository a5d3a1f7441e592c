"""JSON pointers (RFC 6901) and patches (RFC 6902), as far as injections need them. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

from sidecar.inject.model import Operation


def join(*parts: str | int) -> str:
    """A pointer of its parts.

    >>> join("spec", "a/b", 0)
    '/spec/a~1b/0'
    """
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def split(pointer: str) -> list[str]:
    """The parts of a pointer.

    >>> split("/spec/a~1b/0"), split("")
    (['spec', 'a/b', '0'], [])
    """
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def look_up(document: object, pointer: str) -> object:
    """What a pointer points at; None where there is nothing, as Kubernetes takes null for absent."""
    for part in split(pointer):
        if isinstance(document, dict):
            document = document.get(part)
        elif isinstance(document, list) and part.isdecimal() and int(part) < len(document):
            document = document[int(part)]
        else:
            return None
    return document


def apply(document: object, operations: Iterable[Operation]) -> object:
    """The document with a patch applied; the one given stays as it is, and is shared where nothing changes.

    Raises LookupError, ValueError or TypeError for a path that isn't there.
    """
    for operation in operations:
        parts = split(operation.path)
        document = _applied(document, parts, operation) if parts else copy.deepcopy(operation.value)
    return document


def _applied(node: object, parts: Sequence[str], operation: Operation) -> object:
    name = parts[0]
    if isinstance(node, dict):
        changed = dict(node)
        if len(parts) > 1:
            changed[name] = _applied(node[name], parts[1:], operation)
        elif operation.op == "remove":
            del changed[name]
        else:
            changed[name] = copy.deepcopy(operation.value)
        return changed
    if not isinstance(node, list):
        raise TypeError(f"{operation.path}: {name!r} is below what is neither a mapping nor a list")
    items = list(node)
    index = len(items) if name == "-" else int(name)
    if len(parts) > 1:
        items[index] = _applied(items[index], parts[1:], operation)
    elif operation.op == "remove":
        del items[index]
    elif operation.op == "replace":
        items[index] = copy.deepcopy(operation.value)
    else:
        items.insert(index, copy.deepcopy(operation.value))
    return items
