"""A container's cgroup is found by identity, and whatever is in the way is told with its remedy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.core.model import Container, Process
from sidecar.guard import GuardUnavailableError
from sidecar.kernel import cgroup
from tests.guard.conftest import LIMIT_MIB, Box
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


def test_a_private_namespace_hides_no_container(box: Box) -> None:
    """A program that sees its own cgroup as the root of all is found in the machine's view, and its limit is raised."""
    kind, options = ("cgroup", "-omemory") if box.version == 1 else ("cgroup2", "-orw")
    script = f'umount -lR /sys/fs/cgroup && mount -t {kind} {options} none /sys/fs/cgroup && exec "$@"'
    joined = "".join(f"echo 0 >{file}; " for file in box.app.join_files)
    inside = ["unshare", "--cgroup", "--mount", "sh", "-c", script, "sh"]
    with eater(box.app, "sh", "-c", joined + 'exec "$@"', "sh", *inside, *_without_joining()) as program:
        process = Process(pid=program.process.pid, created_at_s=0.0, name="eater", uid=0, gid=0)
        memory = cgroup.open_cgroup(Path("/proc"), Container(key="/", name="app", processes=(process,)))
        assert str(memory.directory) == f"/proc/{process.pid}/root/sys/fs/cgroup"
        box.memories.append(memory)
        box.guard().adopt(memory).hold(1.0)
        assert box.limit_bytes() > LIMIT


def _without_joining() -> list[str]:
    """The program joins before it loses sight of the machine's cgroups; afterwards there is nothing to join."""
    return ["sh", "-c", 'exec "$1" "$2" "$3"', "sh"]


def test_a_view_without_the_container_says_what_to_mount(box: Box, tmp_path: Path) -> None:
    """An empty directory, a missing one, and another cgroup are told apart from the machine's by what they lack."""
    memory = box.memory()
    for view in (tmp_path, tmp_path / "missing", Path("/proc/self")):
        with pytest.raises(GuardUnavailableError, match="mount the machine's /sys/fs/cgroup"):
            box.guard(view=view).adopt(memory)
    assert box.entries() == []


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
