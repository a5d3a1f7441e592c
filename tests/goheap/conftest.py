from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.goheap.buckets import View
from sidecar.goheap.encode import encode
from tests.goheap.decoded import DecodedProfile, decode_profile

Decode = Callable[[bytes, Path, View], DecodedProfile]


@pytest.fixture
def decode(tmp_path: Path) -> Decode:
    """Makes a profile of a raw snapshot and reads it back."""

    def decoded(snapshot: bytes, executable: Path, view: View) -> DecodedProfile:
        raw, out = tmp_path / "raw", io.BytesIO()
        raw.write_bytes(snapshot)
        encode(raw, executable, out, view)
        return decode_profile(out.getvalue())

    return decoded
