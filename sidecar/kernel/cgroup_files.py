"""Parsers of the text in cgroup and mount files. Pure; the readers are in `sidecar.kernel.cgroup`."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Literal

CgroupVersion = Literal[1, 2]

# v1 says "no limit" with the largest multiple of the page size that a signed 64-bit counter holds (PAGE_COUNTER_MAX).
_V1_UNLIMITED_BYTES = 1 << 60

_OCTAL_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupMount:
    """A mounted hierarchy that has the memory controller, or may have it (v2).

    ``root`` is the cgroup that the mount point shows, ``point`` where it is mounted, ``mount_id`` its number
    (proc_pid_mountinfo(5)).
    """

    version: CgroupVersion
    root: str
    point: str
    mount_id: str


def parse_proc_cgroup(text: str) -> tuple[CgroupVersion, str] | None:
    r"""The memory cgroup of a process from /proc/PID/cgroup; the v1 controller wins on hybrid hosts (cgroups(7)).

    >>> parse_proc_cgroup("4:memory:/kubepods/x\n0::/\n"), parse_proc_cgroup("0::/../c1\n")
    ((1, '/kubepods/x'), (2, '/../c1'))
    """
    unified = None
    for line in text.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            return 1, path
        if hierarchy == "0" and not controllers:
            unified = path
    return None if unified is None else (2, unified)


def parse_mountinfo(text: str, version: CgroupVersion) -> tuple[CgroupMount, ...]:
    """The mounts of the memory hierarchy of this version, the latest (topmost) first.

    >>> parse_mountinfo("36 35 0:26 /../c1 /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw", 2)
    (CgroupMount(version=2, root='/../c1', point='/sys/fs/cgroup', mount_id='36'),)
    """
    mounts = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if not separator or len(fields) < 5 or len(tail) < 3:
            continue
        kind, super_options = tail[0], tail[2].split(",")
        if (version == 2 and kind == "cgroup2") or (version == 1 and kind == "cgroup" and "memory" in super_options):
            root, point = _unescape(fields[3]), _unescape(fields[4])
            mounts.append(CgroupMount(version=version, root=root, point=point, mount_id=fields[0]))
    return tuple(reversed(mounts))


def directory_in_mount(mount: CgroupMount, cgroup_path: str) -> str | None:
    """Where a mount shows a cgroup; None if the cgroup lies outside of what it shows.

    Root and path are both told relative to the reader's own cgroup namespace, so they compare as text.

    >>> directory_in_mount(CgroupMount(version=2, root="/../c1", point="/sys/fs/cgroup", mount_id="36"), "/../c1")
    '/sys/fs/cgroup'
    >>> directory_in_mount(CgroupMount(version=1, root="/", point="/sys/fs/cgroup/memory", mount_id="36"), "/a/b")
    '/sys/fs/cgroup/memory/a/b'
    """
    if cgroup_path == mount.root:
        return mount.point
    base = mount.root.rstrip("/") + "/"
    if not cgroup_path.startswith(base) or ".." in cgroup_path[len(base) :].split("/"):
        return None
    return posixpath.join(mount.point, cgroup_path[len(base) :])


def parse_memory_max(text: str) -> int | None:
    """``memory.max``: "max" is no limit (None), never 0."""
    stripped = text.strip()
    return None if stripped == "max" else int(stripped)


def limit_of(value_bytes: int) -> int | None:
    """What a number of v1's ``memory.limit_in_bytes`` means: one beyond any machine is no limit (None)."""
    return None if value_bytes >= _V1_UNLIMITED_BYTES else value_bytes


def parse_flat_keyed(text: bytes, key: bytes) -> int | None:
    r"""The value of one key of a flat keyed file such as ``memory.stat``; None if the kernel doesn't have it.

    >>> parse_flat_keyed(b"inactive_anon 1\ninactive_file 4096\n", b"inactive_file")
    4096
    """
    if text.startswith(key + b" "):
        start = len(key) + 1
    else:
        found = text.find(b"\n" + key + b" ")
        if found < 0:
            return None
        start = found + len(key) + 2
    end = text.find(b"\n", start)
    try:
        return int(text[start : end if end >= 0 else len(text)])
    except ValueError:
        return None


def parse_status_kib(text: str, key: str) -> int | None:
    r"""A size of /proc/PID/status in bytes, such as ``RssAnon``; None for a kernel thread or a zombie.

    >>> parse_status_kib("Name:\tx\nRssAnon:\t    12 kB\n", "RssAnon")
    12288
    """
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == key:
            number = value.split()[:1]
            return int(number[0]) * 1024 if number and number[0].isdigit() else None
    return None


def _unescape(field: str) -> str:
    """Undo the octal escapes of blanks, tabs, newlines and backslashes in mountinfo."""
    return _OCTAL_ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)
