"""Turns itself into a container's program: run as a file by `localpod.pod`, with a plan in JSON as its one argument.

It starts in the pod's PID namespace and in the machine's mount namespace, and joins the container's cgroup as its last
act before exec, so that every page the program touches is charged there, and nothing else. What goes wrong is written
to the plan's ``status_fd``, which closes by itself when exec succeeds.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import TypedDict

# sched.h and sys/mount.h; the numbers are part of the kernel's interface.
CLONE_NEWNS = 0x0002_0000
CLONE_NEWCGROUP = 0x0200_0000
CLONE_NEWPID = 0x2000_0000
_MS_RDONLY = 0x1
_MS_REMOUNT = 0x20
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x4_0000


class Plan(TypedDict):
    """What to become. ``binds`` are (source, target, read-only), ``uid`` and ``gid`` None to stay as they are."""

    mount_namespace: str
    join_files: list[str]
    binds: list[tuple[str, str, bool]]
    private_cgroups: bool
    directory: str
    uid: int | None
    gid: int | None
    argv: list[str]
    env: dict[str, str]
    status_fd: int


_libc = ctypes.CDLL(None, use_errno=True)


def setns(path: str, kind: int) -> None:
    """Enter the namespace behind ``path`` (setns(2)); with CLONE_NEWPID only children of this thread will be in it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, kind), path)
    finally:
        os.close(fd)


def _check(result: int, subject: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)


def _mount(source: str, target: str, flags: int) -> None:
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(flags), None), target)


def _become(plan: Plan) -> None:
    join_fds = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in plan["join_files"]]
    setns(plan["mount_namespace"], CLONE_NEWNS)
    _check(_libc.unshare(CLONE_NEWNS), "a mount namespace")
    _mount("none", "/", _MS_REC | _MS_PRIVATE)
    for source, target, read_only in plan["binds"]:
        _mount(source, target, _MS_BIND)
        if read_only:
            _mount("none", target, _MS_REMOUNT | _MS_BIND | _MS_RDONLY)
    os.chdir(plan["directory"])
    for fd in join_fds:
        os.write(fd, b"0")
    if plan["private_cgroups"]:
        _check(_libc.unshare(CLONE_NEWCGROUP), "a cgroup namespace")
    if plan["gid"] is not None or plan["uid"] is not None:
        os.setgroups([])
    if plan["gid"] is not None:
        os.setgid(plan["gid"])
    if plan["uid"] is not None:
        os.setuid(plan["uid"])
    os.execvpe(plan["argv"][0], plan["argv"], plan["env"])


if __name__ == "__main__":
    plan: Plan = json.loads(sys.argv[1])
    os.set_inheritable(plan["status_fd"], False)
    try:
        _become(plan)
    except OSError as error:
        os.write(plan["status_fd"], f"{error.filename}: {error.strerror}".encode())
        sys.exit(125)
    except (ValueError, OverflowError) as error:  # a UID out of range, a zero byte in the environment
        os.write(plan["status_fd"], str(error).encode())
        sys.exit(125)
