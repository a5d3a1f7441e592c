"""What passes as a profile, and what doesn't, however the bytes are cut."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.profile_check import ProfileCheck
from sidecar.errors import EmptyProfileError, PprofError


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """A protobuf number."""
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


PROFILE = field(1, b"\x08\x01\x10\x02") + field(2, b"x" * 300) * 3 + field(6, b"") + b"\x48" + varint(1 << 40)


def check(body: bytes, size: int = 1 << 16, max_raw_bytes: int = 1 << 20) -> int:
    """Feed a body in pieces of ``size``."""
    profile = ProfileCheck(max_raw_bytes)
    for start in range(0, len(body), size):
        profile.feed(body[start : start + size])
    return profile.finish()


@pytest.mark.parametrize("size", [1, 2, 7, 4096])
def test_a_profile_passes_however_it_is_cut(size: int) -> None:
    """Its samples are counted, in pieces of any size."""
    assert check(gzip.compress(PROFILE), size) == 3


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "middle of its gzip"),
        (b"<!doctype html><html>", "looks like HTML"),
        (b"OK\n", "isn't gzip"),
        (gzip.compress(PROFILE)[:-9], "middle of its gzip"),
        (gzip.compress(b"<html>" * 100), "isn't a pprof profile"),
        (gzip.compress(PROFILE[:-1]), "cut short"),
        (gzip.compress(field(2, b"x" * 500)[:100]), "cut short"),
        (gzip.compress(field(2, b"x")), "no sample type"),
        (gzip.compress(PROFILE) + b"tail", "after the end"),
        (b"\x1f\x8b\x08garbage garbage garbage", "broken gzip"),
        (gzip.compress(b""), "no sample type"),
    ],
)
def test_what_is_not_a_profile_is_refused(body: bytes, reason: str) -> None:
    """Each refusal says what the body is."""
    with pytest.raises(PprofError, match=reason):
        check(body)


def test_a_profile_without_samples_is_told_apart() -> None:
    """Empty is not broken: another query may bring more."""
    with pytest.raises(EmptyProfileError):
        check(gzip.compress(field(1, b"\x08\x01")))


def test_a_gzip_bomb_ends_at_the_cap() -> None:
    """A kilobyte that unpacks to a gigabyte is stopped at the cap."""
    bomb = gzip.compress(field(2, b"\0" * (8 << 20)))
    with pytest.raises(PprofError, match="unpacks to more than"):
        check(bomb, max_raw_bytes=1 << 20)


def test_a_bomb_of_tiny_fields_ends_at_the_cap() -> None:
    """Each field costs time of ours, though hardly a byte: their number is capped, far beyond any honest profile."""
    assert check(gzip.compress(PROFILE + field(2, b"") * 500_000), max_raw_bytes=1 << 30) == 500_003
    with pytest.raises(PprofError, match="more than 1000000 fields"):
        check(gzip.compress(PROFILE + field(2, b"") * 1_100_000), max_raw_bytes=1 << 30)


@given(
    st.lists(
        st.one_of(
            st.builds(field, st.integers(1, 15), st.binary(max_size=300)),
            st.builds(
                lambda number, value: bytes([number << 3]) + varint(value),
                st.integers(1, 15),
                st.integers(0, 2**64 - 1),
            ),
            st.builds(
                lambda number, value: bytes([number << 3 | 1]) + value,
                st.integers(1, 15),
                st.binary(min_size=8, max_size=8),
            ),
            st.builds(
                lambda number, value: bytes([number << 3 | 5]) + value,
                st.integers(1, 15),
                st.binary(min_size=4, max_size=4),
            ),
        )
    ),
    st.integers(1, 64),
)
def test_every_wire_type_is_stepped_over(fields: list[bytes], size: int) -> None:
    """Fields of any kind and length are counted one by one, however the bytes are cut."""
    samples = sum(one[0] >> 3 == 2 for one in fields)
    assert check(gzip.compress(PROFILE + b"".join(fields)), size) == 3 + samples


@given(st.binary(max_size=2000), st.integers(1, 64))
def test_garbage_never_crashes_and_is_rarely_believed(raw: bytes, size: int) -> None:
    """Any bytes end in a verdict; what passes has the fields that make it a profile."""
    for body in (raw, gzip.compress(raw)):
        try:
            samples = check(body, size)
        except PprofError:
            continue
        assert samples >= 1
        assert b"\x0a" in raw
        assert b"\x12" in raw
