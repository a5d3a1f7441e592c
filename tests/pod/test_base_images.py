"""What is taken of Debian's packages for the final image's base; this needs no podman."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from localpod.base_images import keep_the_runtime


def test_programs_stay_behind_and_merged_directories_are_linked(tmp_path: Path) -> None:
    """Of a release with everything below /usr the interpreter and its libraries are kept, and found at /lib too."""
    with tarfile.open(tmp_path / "in.tar", "w") as archive:
        for name in ("usr/bin/python3.13", "usr/bin/dpkg", "usr/lib/x86_64-linux-gnu/libc.so.6", "etc/dpkg/dpkg.cfg"):
            member = tarfile.TarInfo(f"./{name}")
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
    keep_the_runtime(tmp_path / "in.tar", tmp_path / "out.tar")
    with tarfile.open(tmp_path / "out.tar") as archive:
        members = {member.name.removeprefix("./"): member for member in archive}
    assert set(members) == {
        "usr/bin/python3.13",
        "usr/lib/x86_64-linux-gnu/libc.so.6",
        "lib",
        "lib64",
        "tmp",
        "etc/passwd",
    }
    assert (members["lib"].linkname, members["lib64"].linkname) == ("usr/lib", "usr/lib64")
    assert members["tmp"].mode == 0o1777
