"""What ends the loop's sleep: other threads, and on cgroup v2 the kernel itself."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from localpod import cgroups
from sidecar.kernel.cgroup import MemoryCgroup
from sidecar.watch.wakeup import Wakeup

DEADLINE_S = 30.0
MIB = 1 << 20


def test_another_thread_ends_the_sleep() -> None:
    """Set before the sleep or in it, it ends at once; nobody's event is told."""
    wakeup = Wakeup()
    wakeup.set()
    assert wakeup.sleep(DEADLINE_S) == frozenset()
    threading.Thread(target=wakeup.set).start()
    assert wakeup.sleep(DEADLINE_S) == frozenset()


def test_an_oom_kill_ends_the_sleep() -> None:
    """The kernel's note of it, seen with read access only, once; it is heard again only after `watch`."""
    reason = cgroups.unavailable()
    if reason is not None:
        pytest.skip(reason)
    with cgroups.new_cgroup() as parent:
        if parent.version != 2:
            pytest.skip("cgroup v1 tells events to nobody who may only read")
        child = cgroups.add_child(parent, "app", memory_limit_bytes=32 * MIB)
        memory, wakeup = MemoryCgroup(child.memory, 2), Wakeup()
        fd = memory.events_fd
        assert fd is not None
        before = memory.read().oom_kills
        wakeup.watch(fd)
        grow = f"open({str(child.join_files[0])!r}, 'w').write('0'); x = bytearray({64 * MIB})"
        process = subprocess.Popen([sys.executable, "-c", grow])
        fired = frozenset[int]()
        while memory.read().oom_kills == before:  # the limit is told of before the kill
            wakeup.watch(fd)
            fired = wakeup.sleep(DEADLINE_S)
            assert fired == {fd}
        process.wait(DEADLINE_S)
        wakeup.unwatch(fd)
        memory.close()
        assert fired == {fd}
