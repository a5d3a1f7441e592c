"""A container's cgroup is found by identity, and whatever is in the way is told with its remedy."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from localpod import cgroups
from localpod.cgroups import Cgroup
from sidecar.core.model import Container, Process
from sidecar.guard import GuardUnavailableError
from sidecar.kernel import cgroup, membership
from sidecar.kernel.cgroup import MemoryCgroup
from tests.guard.conftest import LIMIT_MIB, Box, needs_unshare
from tests.guard.eater import MIB, eater

ROOT = Path(__file__).resolve().parents[2]
LIMIT = LIMIT_MIB * MIB

_ADOPT = """
import sys
from pathlib import Path
from sidecar.core.guard import GuardPolicy
from sidecar.guard import Guard, GuardUnavailableError
from sidecar.kernel.cgroup import MemoryCgroup
import os
memory = MemoryCgroup(Path(sys.argv[1]), int(sys.argv[2]))
os.setuid(int(sys.argv[4]))
try:
    Guard(GuardPolicy(mode="raise"), Path("/sys/fs/cgroup"), Path(sys.argv[3])).adopt(memory)
except GuardUnavailableError as error:
    print(error)
"""


def adopt_elsewhere(box: Box, uid: int, *prefix: str) -> str:
    """Adopt in a process of its own, below a command, as a user; what it is told."""
    arguments = [str(box.app.memory), str(box.version), str(box.journal), str(uid)]
    command = [*prefix, sys.executable, "-c", _ADOPT, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@needs_unshare
def test_a_private_namespace_hides_no_container(box: Box) -> None:
    """A program that sees its own cgroup as the root of all is found in the machine's view, and its limit is raised."""
    kind, options = ("cgroup", "-omemory") if box.version == 1 else ("cgroup2", "-orw")
    script = f'umount -lR /sys/fs/cgroup && mount -t {kind} {options} none /sys/fs/cgroup && exec "$@"'
    with secretive(box, script, "--cgroup") as memory:
        assert memory.directory.match("/proc/[0-9]*/root/sys/fs/cgroup")
        box.guard().adopt(memory).hold(1.0)
        assert box.limit_bytes() > LIMIT


@contextlib.contextmanager
def secretive(box: Box, script: str, *namespaces: str) -> Iterator[MemoryCgroup]:
    """A program in the container that changes its mounts by a script which ends in ``exec``; its memory, as found.

    It joins before it loses sight of the machine's cgroups; afterwards there is nothing to join.
    """
    joined = "".join(f"echo 0 >{file}; " for file in box.app.join_files)
    inside = ["unshare", *namespaces, "--mount", "sh", "-c", script, "sh"]
    without_joining = ["sh", "-c", 'exec "$1" "$2" "$3"', "sh"]
    with eater(box.app, "sh", "-c", joined + 'exec "$@"', "sh", *inside, *without_joining) as program:
        process = Process(pid=program.process.pid, created_at_s=0.0, name="eater", uid=0, gid=0)
        memory = cgroup.open_cgroup(Path("/proc"), Container(key="/", name="app", processes=(process,)))
        box.memories.append(memory)
        yield memory


@pytest.fixture
def neighbour(box: Box) -> Iterator[Cgroup]:
    """Another container's cgroup, with a program in it."""
    cgroup = cgroups.add_child(box.pod, "neighbour", memory_limit_bytes=LIMIT)
    with eater(cgroup):
        yield cgroup


@needs_unshare
@pytest.mark.parametrize(
    "how",
    [
        "mount -t tmpfs none /sys/fs && mkdir -p {parent} && ln -s {foreign} {own}",
        "mount --bind {foreign} {own}",
        "mount --bind {foreign}/{limit} {own}/{limit} && mount --bind {foreign}/{procs} {own}/{procs}",
    ],
    ids=["link", "mount", "mounted files"],
)
def test_another_cgroup_in_the_place_of_its_own_is_left_alone(box: Box, neighbour: Cgroup, how: str) -> None:
    """A program that shows a neighbour's cgroup as its own gets its own limit raised, and we see its own memory."""
    own, foreign = box.app.memory, neighbour.memory
    files = {"limit": box.file("limit").name, "procs": "cgroup.procs"}
    with secretive(box, how.format(own=own, foreign=foreign, parent=own.parent, **files) + ' && exec "$@"') as memory:
        assert memory.read_pids() != (int((foreign / "cgroup.procs").read_text()),)
        box.guard().adopt(memory).hold(1.0)
        assert box.limit_bytes() > LIMIT
        assert int(box.file("limit", of=neighbour).read_text()) == LIMIT


def test_a_cgroup_without_the_containers_processes_is_not_guarded(box: Box, neighbour: Cgroup) -> None:
    """However it came to be shown to us: whose processes are in there tells."""
    with eater(box.app) as program:
        own = membership.read_cgroup(Path("/proc"), program.process.pid)
        assert own is not None
        is_home = partial(membership.is_in, Path("/proc"), own)
        box.memories.append(MemoryCgroup(neighbour.memory, neighbour.version, is_home=is_home))
        guard = box.guard()
        for act in (guard.adopt, guard.probe):
            with pytest.raises(GuardUnavailableError, match="none of its processes"):
                act(box.memories[-1])
        assert int(box.file("limit", of=neighbour).read_text()) == LIMIT
    assert box.entries() == []


def test_a_view_without_the_container_says_what_to_mount(box: Box, tmp_path: Path) -> None:
    """An empty directory, a missing one, and another cgroup are told apart from the machine's by what they lack."""
    memory = box.memory()
    for view in (tmp_path, tmp_path / "missing", Path("/proc/self")):
        with pytest.raises(GuardUnavailableError, match="mount the machine's /sys/fs/cgroup"):
            box.guard(view=view).adopt(memory)
    assert box.entries() == []


@needs_unshare
def test_a_read_only_view_is_told(box: Box) -> None:
    """Mounted read-only, the error names the mount's remedy, and nothing is left in the journal."""
    top = "/sys/fs/cgroup/memory" if box.version == 1 else "/sys/fs/cgroup"
    script = f'mount --bind {top} {top} && mount -o remount,bind,ro {top} && exec "$@"'
    told = adopt_elsewhere(box, 0, "unshare", "--mount", "sh", "-c", script, "sh")
    assert "Read-only file system" in told
    assert "without readOnly" in told
    assert box.entries() == []


def test_another_user_is_told(box: Box) -> None:
    """Without root's rights the error says to run as user 0."""
    assert "run the sidecar as user 0" in adopt_elsewhere(box, 65534)
    assert box.entries() == []


def test_a_journal_that_can_not_be_written_is_told(box: Box) -> None:
    """No guard without a journal: the limit stays as it is."""
    box.journal.write_text("a file in the way")
    with pytest.raises(GuardUnavailableError, match="make the spool writable"):
        box.adopt("raise")
    assert box.limit_bytes() == LIMIT


def test_off_is_off(box: Box) -> None:
    """Nobody asked for a guard: none is had."""
    with pytest.raises(GuardUnavailableError, match="off"):
        box.adopt("off")


def test_a_container_that_has_ended_is_told(box: Box) -> None:
    """Its cgroup vanished between the survey and the adoption."""
    memory = box.memory()
    os.rmdir(box.app.memory)  # noqa: PTH106 - a cgroup's directory goes with its files
    with pytest.raises(GuardUnavailableError, match="has ended"):
        box.guard().adopt(memory)
