"""Reads pprof profiles, for comparison: a parser of its own, so that writer and test don't share a mistake."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

Line = tuple[str, str, int, int]
"""Function, file, line, first line of the function."""


@dataclass
class DecodedProfile:
    """A profile with all indexes followed."""

    sample_types: list[tuple[str, str]] = field(default_factory=list)
    samples: list[DecodedSample] = field(default_factory=list)
    mappings: list[tuple[int, int, int, str, str, bool]] = field(default_factory=list)
    period_type: tuple[str, str] = ("", "")
    period: int = 0
    time_ns: int = 0
    comments: list[str] = field(default_factory=list)
    default_sample_type: str = ""

    def comparable(self) -> Counter[DecodedSample]:
        """The samples that say anything, in no order."""
        return Counter(sample for sample in self.samples if any(sample.values))

    def total(self, kind: str) -> int:
        """Sum of the values of a type."""
        index = [name for name, _ in self.sample_types].index(kind)
        return sum(sample.values[index] for sample in self.samples)

    def by_function(self, kind: str) -> Counter[str]:
        """The values of a type by the innermost function."""
        index = [name for name, _ in self.sample_types].index(kind)
        sums: Counter[str] = Counter()
        for sample in self.samples:
            if sample.stack:
                sums[sample.stack[0].lines[0][0]] += sample.values[index]
        return sums


@dataclass(frozen=True)
class DecodedLocation:
    """One address with the calls inlined there, innermost first. ``mapping`` is where it lies."""

    address: int
    mapping: int
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class DecodedSample:
    """A stack and its values."""

    stack: tuple[DecodedLocation, ...]
    values: tuple[int, ...]
    labels: tuple[tuple[str, int], ...]

    def functions(self) -> list[str]:
        """Names of all functions, innermost first."""
        return [line[0] for location in self.stack for line in location.lines]


def decode_profile(content: bytes) -> DecodedProfile:
    """Decode a gzipped profile."""
    raw = gzip.decompress(content)
    messages: dict[int, list[bytes]] = {}
    numbers: dict[int, list[int]] = {}
    for number, value in _fields(raw):
        if isinstance(value, int):
            numbers.setdefault(number, []).append(value)
        else:
            messages.setdefault(number, []).append(value)
    text = [value.decode() for value in messages[6]]
    locations = _locations(messages, text)
    profile = DecodedProfile(
        sample_types=[_value_type(message, text) for message in messages[1]],
        period_type=_value_type(messages[11][0], text),
        period=numbers.get(12, [0])[0],
        time_ns=numbers.get(9, [0])[0],
        comments=[text[index] for index in numbers.get(13, [])],
        default_sample_type=text[numbers.get(14, [0])[0]],
    )
    for message in messages.get(3, []):
        one = _single(message)
        profile.mappings.append(
            (one.get(2, 0), one.get(3, 0), one.get(4, 0), text[one.get(5, 0)], text[one.get(6, 0)], bool(one.get(7)))
        )
    profile.samples = [_sample(message, locations, text) for message in messages.get(2, [])]
    return profile


def _locations(messages: dict[int, list[bytes]], text: list[str]) -> dict[int, DecodedLocation]:
    functions = {}
    for message in messages.get(5, []):
        one = _single(message)
        assert one.get(2) == one.get(3), "name and system name differ"
        functions[one[1]] = (text[one.get(2, 0)], text[one.get(4, 0)], one.get(5, 0))
    locations = {}
    for message in messages.get(4, []):
        one = _single(message)
        lines = []
        for number, value in _fields(message):
            if number == 4 and isinstance(value, bytes):
                line = _single(value)
                name, file, start = functions[line[1]]
                lines.append((name, file, line.get(2, 0), start))
        locations[one[1]] = DecodedLocation(one[3], one.get(2, 0), tuple(lines))
    return locations


def _sample(message: bytes, locations: dict[int, DecodedLocation], text: list[str]) -> DecodedSample:
    stack, values, labels = [], [], []
    for number, value in _fields(message):
        if number == 3 and isinstance(value, bytes):
            label = _single(value)
            labels.append((text[label[1]], _signed(label.get(3, 0))))
            continue
        many = [value] if isinstance(value, int) else list(_varints(value))
        if number == 1:
            stack += [locations[at] for at in many]
        elif number == 2:
            values += [_signed(one) for one in many]
    return DecodedSample(tuple(stack), tuple(values), tuple(labels))


def _value_type(message: bytes, text: list[str]) -> tuple[str, str]:
    one = _single(message)
    return text[one[1]], text[one[2]]


def _single(message: bytes) -> dict[int, int]:
    return {number: value for number, value in _fields(message) if isinstance(value, int)}


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
        else:
            assert tag & 7 == 2, f"unexpected wire type {tag & 7}"
            size, at = _varint(data, at)
            yield tag >> 3, data[at : at + size]
            at += size
