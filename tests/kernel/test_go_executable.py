"""Go programs are recognised in whatever form they come, and nothing is called "not Go" that can't be known."""

from __future__ import annotations

import io
import os
import struct
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localpod.toolchain import Toolchain
from sidecar.core.model import GoProgram
from sidecar.errors import NotPermittedError, TargetGoneError, UnreadableExecutableError
from sidecar.kernel.go_executable import ByteOrder, parse_go_program, read_go_program

MAGIC = b"\xff Go buildinf:\x08"
INLINE = MAGIC + b"\x02" + bytes(16) + b"\x08go1.27.3\x00"
POINTERS = MAGIC + b"\x00" + bytes(16)


def note(order: ByteOrder, name: bytes = b"Go\0\0", description: bytes = b"a/build/id", kind: int = 4) -> bytes:
    """An ELF note."""
    padded = description + bytes(-len(description) % 4)
    return struct.pack(f"{order}III", len(name), len(description), kind) + name + padded


def elf(
    order: ByteOrder,
    bits: int,
    *,
    sections: dict[bytes, bytes] | None = None,
    segments: tuple[tuple[int, int, bytes], ...] = (),
) -> bytes:
    """A small ELF file: sections by name, segments as (type, flags, content)."""
    word, header_bytes = ("Q", 64) if bits == 64 else ("I", 52)
    body = bytearray(bytes(header_bytes))

    def put(content: bytes) -> tuple[int, int]:
        body.extend(bytes(-len(body) % 16))
        body.extend(content)
        return len(body) - len(content), len(content)

    named = {b"": b"", **sections, b".shstrtab": b""} if sections is not None else {}
    names = b"".join(name + b"\0" for name in named)
    if named:
        named[b".shstrtab"] = names
    table = b""
    name_at = 0
    for name, content in named.items():
        at, size = put(content)
        table += struct.pack(f"{order}II{word}{word}{word}{word}", name_at, 1, 0, 0, at, size)
        table += bytes((64 if bits == 64 else 40) - (40 if bits == 64 else 24))
        name_at += len(name) + 1
    sections_at = put(table)[0] if named else 0
    table = b""
    for kind, flags, content in segments:
        at, size = put(content)
        if bits == 64:
            table += struct.pack(f"{order}IIQQQQQQ", kind, flags, at, 0, 0, size, size, 16)
        else:
            table += struct.pack(f"{order}IIIIIIII", kind, at, 0, 0, size, size, flags, 16)
    segments_at = put(table)[0]
    body[:header_bytes] = (
        b"\x7fELF"
        + bytes([bits // 32, 1 if order == "<" else 2, 1])
        + bytes(9)
        + struct.pack(f"{order}HHI{word}{word}{word}I", 2, 62, 1, 0, segments_at, sections_at, 0)
        + struct.pack(
            f"{order}HHHHHH",
            header_bytes,
            56 if bits == 64 else 32,
            len(segments),
            64 if bits == 64 else 40,
            len(named),
            max(0, len(named) - 1),
        )
    )
    return bytes(body)


def parse(content: bytes) -> GoProgram | None:
    """What the file says."""
    return parse_go_program(io.BytesIO(content))


FORMS: list[tuple[ByteOrder, int]] = [("<", 64), (">", 64), ("<", 32), (">", 32)]


@pytest.mark.parametrize(("order", "bits"), FORMS)
def test_every_form_of_elf_is_read(order: ByteOrder, bits: int) -> None:
    """Either byte order, either width: version and build id from the sections."""
    sections = {b".text": b"x", b".note.go.buildid": note(order), b".go.buildinfo": INLINE}
    assert parse(elf(order, bits, sections=sections)) == GoProgram(go_version="go1.27.3", build_id="a/build/id")
    assert parse(elf(order, bits, sections={b".text": b"x", b".data": INLINE})) is None


@pytest.mark.parametrize(("order", "bits"), FORMS)
def test_without_sections_the_segments_are_read(order: ByteOrder, bits: int) -> None:
    """The note among others, the build information at a boundary of 16 bytes in the writable segment."""
    notes = note(order, b"GNU\0", b"\1" * 19, 3) + note(order)
    decoy = b"x" + MAGIC + bytes(64)
    data = decoy + bytes(-len(decoy) % 16) + INLINE
    assert parse(elf(order, bits, segments=((4, 4, notes), (1, 6, data)))) == GoProgram(
        go_version="go1.27.3", build_id="a/build/id"
    )
    assert parse(elf(order, bits, segments=((4, 4, notes), (1, 5, data)))) == GoProgram(
        go_version=None, build_id="a/build/id"
    )
    with pytest.raises(UnreadableExecutableError):
        parse(elf(order, bits, segments=((4, 4, note(order, b"GNU\0")), (1, 5, b"packed"))))


@pytest.mark.parametrize("name", [b".gopclntab", b".data.rel.ro.gopclntab", b".gosymtab", b".go.buildinfo"])
def test_go_without_a_version_is_still_go(name: bytes) -> None:
    """Before Go 1.18 the version stood behind a pointer; other tools leave out the section."""
    assert parse(elf("<", 64, sections={name: POINTERS})) == GoProgram(go_version=None, build_id=None)


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"MZ" + bytes(100)])
def test_what_is_not_elf_is_not_go(content: bytes) -> None:
    """For certain."""
    assert parse(content) is None


@given(st.integers(4, 2000), st.integers(0, 63), st.integers(0, 255))
def test_a_broken_file_is_unknown_at_worst(length: int, at: int, value: int) -> None:
    """Cut or altered anywhere, an ELF file ends in one of the three answers."""
    whole = elf("<", 64, sections={b".note.go.buildid": note("<"), b".go.buildinfo": INLINE})
    for content in (whole[:length], whole[:at] + bytes([value]) + whole[at + 1 :]):
        try:
            program = parse(content)
        except UnreadableExecutableError:
            continue
        assert program is None or isinstance(program, GoProgram)


BROKEN = {
    "a length without an end": MAGIC + b"\x02" + bytes(16) + b"\xff" * 64,
    "a very long length": MAGIC + b"\x02" + bytes(16) + b"\xff" * 60000 + b"\x01",
    "a length and nothing else": MAGIC + b"\x02" + bytes(16) + b"\xff",
    "a version that isn't ASCII": MAGIC + b"\x02" + bytes(16) + b"\x06go1.\xff\xfe",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("where", ["section", "segment"])
def test_a_broken_version_is_unknown(where: str, content: bytes) -> None:
    """Whoever made the executable; in a segment there need not even be more of it."""
    sections = {b".go.buildinfo": content}
    broken = elf("<", 64, sections=sections) if where == "section" else elf("<", 64, segments=((1, 6, content),))
    with pytest.raises(UnreadableExecutableError):
        parse(broken)


def test_a_build_id_that_is_not_ascii_is_unknown() -> None:
    """In a section or a segment."""
    bad = note("<", description=b"\xff" * 20)
    for broken in (elf("<", 64, sections={b".note.go.buildid": bad}), elf("<", 64, segments=((4, 4, bad),))):
        with pytest.raises(UnreadableExecutableError):
            parse(broken)


def with_long_names(count: int, name_bytes: int) -> bytes:
    """A file whose sections have all but the same long name, which it holds once."""
    names_at = 64 + 64 * count
    sections = b"".join(struct.pack("<IIQQQQIIQQ", n, 1, 0, 0, names_at, name_bytes, 0, 0, 0, 0) for n in range(count))
    tables = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, 64, 0, 64, 0, 0, 64, count, 0)
    return b"\x7fELF\x02\x01\x01" + bytes(9) + tables + sections + b"x" * name_bytes


def test_long_names_of_sections_take_no_memory() -> None:
    """A file of 1.3 MB that would have us hold 4 GiB."""
    content = with_long_names(4096, 1 << 20)
    tracemalloc.start()
    try:
        assert parse(content) is None
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 16 << 20


class Counting(io.BytesIO):
    """A file that counts what is read of it."""

    read_bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """The same as without."""
        content = super().read(size)
        self.read_bytes += len(content)
        return content


@pytest.mark.parametrize(("kind", "flags"), [(4, 4), (1, 6)])
def test_many_segments_cost_little(kind: int, flags: int) -> None:
    """As many as Linux lets through, each with all of the file; more than that are refused."""
    for count, most_bytes in ((1 << 16) // 56, 2 << 20), (65535, 1 << 10):
        table = struct.pack("<IIQQQQQQ", kind, flags, 0, 0, 0, 1 << 20, 1 << 20, 16) * count
        tables = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, count, 64, 0, 0)
        file = Counting(b"\x7fELF\x02\x01\x01" + bytes(9) + tables + table + bytes(1 << 20))
        with pytest.raises(UnreadableExecutableError):
            parse_go_program(file)
        assert file.read_bytes <= most_bytes


hostile_numbers = st.integers(0, 255) | st.sampled_from(
    [0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 42) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
)
hostile_contents = st.one_of(
    st.sampled_from([INLINE, POINTERS, *BROKEN.values(), note("<"), note(">"), note("<", description=b"\xff")]),
    st.binary(max_size=80),
    st.binary(max_size=40).map(lambda tail: INLINE[:-10] + tail),
    st.binary(max_size=40).map(lambda tail: note("<")[:12] + tail),
)


@settings(max_examples=300, deadline=None)
@given(
    form=st.sampled_from(FORMS),
    sections=st.none()
    | st.dictionaries(st.sampled_from([b".go.buildinfo", b".note.go.buildid", b".gopclntab", b".x"]), hostile_contents),
    segments=st.lists(st.tuples(st.sampled_from([1, 4]), st.sampled_from([4, 6]), hostile_contents), max_size=4),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.sampled_from([1, 2, 4, 8]), hostile_numbers), max_size=2),
    cut=st.just(0) | st.integers(0, 400),
)
def test_whatever_a_file_holds_it_is_an_answer_or_unknown(
    form: tuple[ByteOrder, int],
    sections: dict[bytes, bytes] | None,
    segments: list[tuple[int, int, bytes]],
    changes: list[tuple[int, int, int]],
    cut: int,
) -> None:
    """Any content where Go's should be, any number in any table, any end; and it never reads much."""
    content = bytearray(elf(*form, sections=sections, segments=tuple(segments)))
    for at, size, value in changes:
        place = 6 + at % max(1, len(content) - 14)
        content[place : place + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    file = Counting(bytes(content[: max(64, len(content) - cut)]))
    try:
        program = parse_go_program(file)
    except UnreadableExecutableError:
        program = None
    assert program is None or isinstance(program, GoProgram)
    assert file.read_bytes < 4 << 20


@pytest.mark.parametrize("cut", [5, 40, 63])
def test_a_cut_header_is_unknown(cut: int) -> None:
    """It is ELF, but says nothing."""
    with pytest.raises(UnreadableExecutableError):
        parse(elf("<", 64, sections={b".go.buildinfo": INLINE})[:cut])


@pytest.fixture(scope="module")
def stripped(go: Toolchain) -> Path:
    """The example, built as most images have it."""
    return go.build(Path(__file__).resolve().parents[2] / "examples" / "go-memory-leak", flags=("-ldflags=-s -w",))


def without_sections(path: Path) -> bytes:
    """The same program without its table of sections, as packers and ``sstrip`` leave it."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<Q", content, 0x28, 0)
    struct.pack_into("<HH", content, 0x3C, 0, 0)
    return bytes(content)


@pytest.mark.parametrize("how", ["whole", "stripped"])
def test_a_real_go_program(how: str, leak: Path, stripped: Path, go: Toolchain) -> None:
    """With symbols or without, with sections or without, the toolchain's version and the same build id."""
    path = leak if how == "whole" else stripped
    program = parse(path.read_bytes())
    assert program is not None
    assert program.go_version == go.version
    assert program.build_id
    assert parse(without_sections(path)) == program


def test_a_real_program_of_the_pointer_form(leak: Path) -> None:
    """Its flags say that the version isn't behind them: it is Go all the same."""
    content = leak.read_bytes().replace(MAGIC + b"\x02", MAGIC + b"\x00")
    program = parse(content)
    assert program is not None
    assert program.go_version is None


def test_an_interpreter_is_not_go() -> None:
    """This very Python, through /proc."""
    assert read_go_program(Path("/proc"), os.getpid()) is None
    with Path(sys.executable).open("rb") as file:
        assert parse_go_program(file) is None


def test_a_process_that_has_ended(tmp_path: Path) -> None:
    """Nothing is known of it."""
    with pytest.raises(TargetGoneError):
        read_go_program(tmp_path, 1)


def test_an_executable_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything here, so the kernel's refusal is made up."""

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(NotPermittedError, match="oom-heap-dumper check"):
        read_go_program(tmp_path, 1)
