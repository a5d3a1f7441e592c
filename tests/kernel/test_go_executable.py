"""Go programs are recognised in whatever form they come, and nothing is called "not Go" that can't be known."""

from __future__ import annotations

import io
import os
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
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
