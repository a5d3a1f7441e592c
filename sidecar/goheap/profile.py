"""Writes a heap profile in the format of pprof, as Go's runtime/pprof/proto.go does it for the same stacks. Pure.

The format is perftools.profiles.Profile of google/pprof's ``profile.proto``. Samples stream out; what stays in memory
are locations, functions and strings.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence

from sidecar.goheap.frames import Frame, Symbols, printed_name
from sidecar.goheap.protobuf import delimited, number_field, packed, varint_field
from sidecar.goheap.raw import Mapping

_FLUSH_BYTES = 1 << 16
_SAMPLE_TYPES = (
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
)
_GOEXIT = "runtime.goexit"
_TRIED, _FAILED = 1, 3  # whether the names of a mapping's addresses were found, as bits


class _Location:
    """A location written before: its number, how many addresses it stands for, and the frame of the first."""

    __slots__ = ("frame", "length", "number")

    def __init__(self, number: int, length: int, frame: Frame) -> None:
        self.number = number
        self.length = length
        self.frame = frame


class ProfileWriter:
    """Feed it samples, then `finish`. Gzipped bytes go to ``write`` as they come."""

    def __init__(
        self,
        write: Callable[[bytes], object],
        symbols: Symbols,
        mappings: Sequence[Mapping],
        *,
        hidden_prefixes: tuple[str, ...],
        merges_by_printed_name: bool = False,
    ) -> None:
        """``hidden_prefixes`` begin the names of functions that are left out at the top of a stack."""
        self._write = write
        self._gzip = zlib.compressobj(6, zlib.DEFLATED, 31)
        self._buffer = bytearray()
        self._symbols = symbols
        self._mappings = mappings
        self._hidden_prefixes = hidden_prefixes
        self._merges_by_printed_name = merges_by_printed_name
        self._strings = {"": 0}
        self._functions: dict[str, int] = {}
        self._locations: dict[int, _Location] = {}
        self._frames: dict[int, Frame | None] = {}
        self._hidden: dict[int, bool] = {}
        self._tails: dict[int, list[int]] = {}
        self._symbolized = [0] * len(mappings)
        self._bytes_label = b""

    def begin(self, *, rate: int, taken_at_ns: int, comments: Iterable[str] = ()) -> None:
        """Write what tells how to read the samples: their types, the sampling rate, the time."""
        self._message(11, self._value_type("space", "bytes"))
        self._buffer += number_field(12, rate)
        for kind, unit in _SAMPLE_TYPES:
            self._message(1, self._value_type(kind, unit))
        self._buffer += number_field(9, taken_at_ns)
        for comment in comments:
            self._buffer += number_field(13, self._string(comment))
        self._bytes_label = number_field(1, self._string("bytes"))

    def sample(self, stack: tuple[int, ...], values: tuple[int, int, int, int], size_bytes: int) -> None:
        """Write one sample of ``stack``, return addresses from the innermost on; values in the order of the types."""
        locations = self._locate(self._visible(stack)) or self._locate(stack)
        body = packed(2, values)
        body += packed(1, locations) if len(locations) > 2 else b"".join(varint_field(1, at) for at in locations)
        if size_bytes:
            body += delimited(3, self._bytes_label + number_field(3, size_bytes))
        self._message(2, body)
        if len(self._buffer) > _FLUSH_BYTES:
            self._flush()

    def finish(self) -> None:
        """Write the mappings and the table of strings; the profile is complete."""
        for number, mapping in enumerate(self._mappings, 1):
            body = (
                number_field(1, number)
                + number_field(2, mapping.start)
                + number_field(3, mapping.end)
                + number_field(4, mapping.offset)
            )
            body += number_field(5, self._string(mapping.path)) + number_field(6, self._string(mapping.build_id))
            self._message(3, body + (number_field(7, 1) if self._symbolized[number - 1] == _TRIED else b""))
        for text in self._strings:
            self._buffer += delimited(6, text.encode("utf-8", "surrogateescape"))
        self._flush()
        self._write(self._gzip.flush())

    def _visible(self, stack: tuple[int, ...]) -> tuple[int, ...]:
        """The stack from its first function on that isn't the runtime's own; all of it if there is none."""
        hidden = self._hidden
        for index, pc in enumerate(stack):
            if pc not in hidden:
                hidden[pc] = (self._symbols.name(pc) or "").startswith(self._hidden_prefixes)
            if not hidden[pc]:
                return stack[index:]
        return stack

    def _locate(self, stack: tuple[int, ...]) -> list[int]:
        """Numbers of the locations of a stack; new ones are written. Inlined calls share that of their caller.

        The order of the cases is that of ``appendLocsForStack``.
        """
        if not stack:
            return []
        last = stack[-1]
        if last not in self._tails:
            self._tails[last] = self._symbols.expand_last(last)
        pcs = stack if self._tails[last] == [last] else (*stack[:-1], *self._tails[last])
        found: list[int] = []
        deck_pcs: list[int] = []
        deck: list[Frame] = []
        index, end = 0, len(pcs)
        while index < end:
            pc = pcs[index]
            known = self._locations.get(pc)
            frame = known.frame if known is not None else self._frame(pc)
            if frame is None:  # runtime.goexit
                self._emit(found, deck_pcs, deck)
                index += 1
            elif deck and self._joins(deck[-1], frame):
                deck_pcs.append(pc)
                deck.append(frame)
                index += 1
            else:
                self._emit(found, deck_pcs, deck)
                known = self._locations.get(pc)
                if known is not None:
                    found.append(known.number)
                    index += known.length
                else:
                    deck_pcs, deck = [pc], [frame]
                    index += 1
        self._emit(found, deck_pcs, deck)
        return found

    def _frame(self, pc: int) -> Frame | None:
        """The frame of an address; one without a name for what isn't Go, None for the end of a goroutine's stack."""
        if pc not in self._frames:
            frame = self._symbols.frame(pc) or Frame(pc - 1, "", "", 0, 0, 0, inlined=False)
            self._frames[pc] = None if frame.name == _GOEXIT else frame
        return self._frames[pc]

    def _joins(self, callee: Frame, caller: Frame) -> bool:
        """Whether a call is inlined in the next one (``pcDeck.tryAdd``)."""
        if not callee.inlined or not callee.entry or callee.entry != caller.entry:
            return False
        if self._merges_by_printed_name:
            return printed_name(callee.name) != printed_name(caller.name)
        return callee.name != caller.name

    def _emit(self, found: list[int], pcs: list[int], deck: list[Frame]) -> None:
        """Write the location that has been gathered, if any."""
        if not deck:
            return
        number = len(self._locations) + 1
        self._locations[pcs[0]] = _Location(number, len(pcs), deck[0])
        found.append(number)
        lines, functions = b"", []
        for frame in deck:
            function = self._functions.get(frame.name)
            if function is None:
                function = self._functions[frame.name] = len(self._functions) + 1
                functions.append((function, frame))
            lines += delimited(4, number_field(1, function) + number_field(2, frame.line))
        body = number_field(1, number) + number_field(3, deck[0].pc) + lines
        for index, mapping in enumerate(self._mappings):
            if mapping.start <= pcs[0] < mapping.end:
                body += number_field(2, index + 1)
                self._symbolized[index] |= _TRIED if all(frame.named for frame in deck) else _FAILED
                break
        self._message(4, body)
        for function, frame in functions:
            name = self._string(frame.name)
            self._message(
                5,
                number_field(1, function)
                + number_field(2, name)
                + number_field(3, name)
                + number_field(4, self._string(frame.file))
                + number_field(5, frame.start_line),
            )
        pcs.clear()
        deck.clear()

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))

    def _value_type(self, kind: str, unit: str) -> bytes:
        return number_field(1, self._string(kind)) + number_field(2, self._string(unit))

    def _message(self, number: int, body: bytes) -> None:
        self._buffer += delimited(number, body)

    def _flush(self) -> None:
        self._write(self._gzip.compress(bytes(self._buffer)))
        self._buffer.clear()
