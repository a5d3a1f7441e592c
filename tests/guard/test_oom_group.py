"""``memory.oom.group`` on real v2 cgroups: kept off, given back, and what others write is theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localpod import cgroups
from sidecar.core.guard import GuardPolicy
from sidecar.guard import Guard, GuardUnavailableError, KeptOff, OomGroup
from tests.guard.conftest import VIEW, Box
from tests.guard.eater import eater

ROOT = Path(__file__).resolve().parents[2]

_SIDECAR = """
import sys, time
from pathlib import Path
from sidecar.guard import OomGroup
from sidecar.kernel.cgroup import MemoryCgroup
cgroup, journal = sys.argv[1:]
OomGroup(Path("/sys/fs/cgroup"), Path(journal)).adopt(MemoryCgroup(Path(cgroup), 2)).keep(1.0)
print("kept", flush=True)
time.sleep(600)
"""

_PROBE = """
import os, sys
from pathlib import Path
from sidecar.guard import GuardUnavailableError, OomGroup
from sidecar.kernel.cgroup import MemoryCgroup
memory = MemoryCgroup(Path(sys.argv[1]), 2)
os.setuid(int(sys.argv[2]))
try:
    OomGroup(Path("/sys/fs/cgroup"), Path("/nowhere")).probe(memory)
except GuardUnavailableError as error:
    print(error)
"""


class Ground:
    """A container whose processes die together, as the kubelet sets it up."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.flag = box.app.memory / "memory.oom.group"
        self.flag.write_text("1")
        self.made: list[OomGroup] = []

    def is_set(self) -> bool:
        return self.flag.read_text() == "1\n"

    def oom_group(self, view: Path = VIEW) -> OomGroup:
        self.made.append(OomGroup(view, self.box.journal))
        return self.made[-1]

    def adopt(self) -> KeptOff:
        return self.oom_group().adopt(self.box.memory(), "app")

    def killed_sidecar(self) -> None:
        """A process of its own switches the flag off; then SIGKILL takes it."""
        arguments = [str(self.box.app.memory), str(self.box.journal)]
        with subprocess.Popen(
            [sys.executable, "-c", _SIDECAR, *arguments], cwd=ROOT, stdout=subprocess.PIPE
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"kept\n"
            finally:
                process.kill()
        assert process.returncode == -signal.SIGKILL

    def probe_elsewhere(self, uid: int, *prefix: str) -> str:
        """Probe in a process of its own, below a command, as a user; what it is told."""
        command = [*prefix, sys.executable, "-c", _PROBE, str(self.box.app.memory), str(uid)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def ground(v2_box: Box) -> Iterator[Ground]:
    """One on v2."""
    ground = Ground(v2_box)
    yield ground
    for made in ground.made:
        made.close()


def test_it_is_kept_off_and_given_back(ground: Ground) -> None:
    """The journal knew before; closing sets it again and takes the entry away."""
    kept = ground.adopt()
    assert ground.is_set(), "adopting writes nothing"
    kept.keep(1.0)
    assert not ground.is_set()
    (entry,) = ground.box.entries()
    assert (entry["mode"], entry["changes"][0]["original_bytes"]) == ("oom-group", 1)
    kept.close()
    assert ground.is_set()
    assert ground.box.entries() == []


def test_without_a_journal_it_stays(ground: Ground) -> None:
    """What could not be undone after a crash isn't done."""
    ground.box.journal.write_text("a file in the way")
    ground.adopt().keep(1.0)
    assert ground.is_set()


def test_one_that_is_off_is_left_alone(ground: Ground) -> None:
    """Off before we came, it is off afterwards, and nothing is noted."""
    ground.flag.write_text("0")
    kept = ground.adopt()
    kept.keep(1.0)
    assert ground.box.entries() == []
    kept.close()
    assert not ground.is_set()


def test_one_that_is_set_again_is_switched_off_again(ground: Ground) -> None:
    """As a runtime does with a resize in place; also where it was off at first."""
    ground.flag.write_text("0")
    kept = ground.adopt()
    for now_s in (1.0, 4.0, 7.0):
        kept.keep(now_s)
        assert not ground.is_set()
        ground.flag.write_text("1")


def test_what_somebody_wrote_last_stays(ground: Ground) -> None:
    """Set by another after our last look: closing has nothing to give back, and drops the entry."""
    kept = ground.adopt()
    kept.keep(1.0)
    ground.flag.write_text("1")
    kept.close()
    kept.keep(2.0)
    assert ground.is_set()
    assert ground.box.entries() == []


def test_the_next_start_gives_it_back(ground: Ground) -> None:
    """SIGKILL leaves it off; repair() sets it, says so, and has nothing to do afterwards."""
    ground.killed_sidecar()
    assert not ground.is_set()
    assert ground.oom_group().repair() == 1
    assert ground.is_set()
    assert ground.box.entries() == []
    assert ground.oom_group().repair() == 0


def test_the_next_start_takes_over_what_it_could_not_repair(ground: Ground, tmp_path: Path) -> None:
    """Started without the machine's cgroups the entry is kept; with them the flag is given back at the end."""
    ground.killed_sidecar()
    (tmp_path / "empty").mkdir()
    assert ground.oom_group(tmp_path / "empty").repair() == 0
    assert len(ground.box.entries()) == 1
    kept = ground.adopt()
    kept.keep(1.0)
    assert not ground.is_set()
    kept.close()
    assert ground.is_set()


def test_set_between_the_kill_and_the_next_start_it_is_theirs(ground: Ground) -> None:
    """There is nothing to undo, only an entry to drop."""
    ground.killed_sidecar()
    ground.flag.write_text("1")
    assert ground.oom_group().repair() == 0
    assert ground.is_set()
    assert ground.box.entries() == []


def test_a_container_that_vanished_is_forgotten(ground: Ground) -> None:
    """It ended with the sidecar; one of the same path isn't touched."""
    ground.killed_sidecar()
    cgroups.remove(ground.box.app)
    again = cgroups.add_child(ground.box.pod, "app")
    assert ground.oom_group().repair() == 0
    assert (again.memory / "memory.oom.group").read_text() == "0\n"
    assert ground.box.entries() == []


def test_a_container_that_ends_while_it_is_kept_leaves_nothing(ground: Ground) -> None:
    """Its cgroup is gone: keeping and closing go by in silence, and the entry goes."""
    kept = ground.adopt()
    kept.keep(1.0)
    os.rmdir(ground.box.app.memory)  # noqa: PTH106 -- a cgroup's directory goes with its files
    kept.keep(2.0)
    kept.close()
    assert ground.box.entries() == []


def test_a_damaged_entry_is_set_aside(ground: Ground) -> None:
    """Kept for people, and no obstacle to the others."""
    ground.killed_sidecar()
    (ground.box.journal / "0-0.json").write_text("{")
    assert ground.oom_group().repair() == 1
    assert [path.name for path in ground.box.journal.iterdir()] == ["0-0.damaged"]


def test_after_the_last_act_nothing_is_taken_over(ground: Ground) -> None:
    """The sidecar is stopping; what a late thread asks for would be left behind."""
    oom_group = ground.oom_group()
    kept = oom_group.adopt(ground.box.memory())
    kept.keep(1.0)
    oom_group.close()
    assert ground.is_set()
    with pytest.raises(GuardUnavailableError, match="stopping"):
        oom_group.adopt(ground.box.memory())


def test_the_guard_beside_it_is_not_disturbed(ground: Ground, tmp_path: Path) -> None:
    """Both change the same cgroup, each with a journal of its own, and each undoes its own."""
    guard = Guard(GuardPolicy(mode="raise"), VIEW, tmp_path / "limits")
    guarded = guard.adopt(ground.box.memory())
    limit_bytes = ground.box.limit_bytes()
    kept = ground.adopt()
    kept.keep(1.0)
    guarded.hold(1.0)
    assert ground.box.limit_bytes() > limit_bytes
    guard.close()
    assert (ground.box.limit_bytes(), ground.is_set()) == (limit_bytes, False)


@pytest.mark.parametrize("kept_off", [False, True])
def test_what_a_kill_takes(ground: Ground, *, kept_off: bool) -> None:
    """A program runs into the limit: set, it takes the bystander with it; kept off, the bystander lives."""
    if kept_off:
        ground.adopt().keep(1.0)
    with eater(ground.box.app) as bystander, eater(ground.box.app) as program:
        assert ground.box.memory().read().oom_group is not kept_off
        assert not program.take(200)
        program.process.wait()
        if kept_off:
            assert bystander.take(1)
        else:
            assert bystander.process.wait() == -signal.SIGKILL


def test_who_is_in_there_is_told(ground: Ground) -> None:
    """As the kernel lists them, in our own PID namespace."""
    memory = ground.box.memory()
    assert memory.read_pids() == ()
    with eater(ground.box.app) as program:
        assert memory.read_pids() == (program.process.pid,)


def test_a_read_only_view_is_told(ground: Ground) -> None:
    """Mounted read-only, the error names the mount's remedy."""
    script = 'mount --bind /sys/fs/cgroup /sys/fs/cgroup && mount -o remount,bind,ro /sys/fs/cgroup && exec "$@"'
    told = ground.probe_elsewhere(0, "unshare", "--mount", "sh", "-c", script, "sh")
    assert "memory.oom.group can't be written (Read-only file system)" in told
    assert "without readOnly" in told


def test_another_user_is_told(ground: Ground) -> None:
    """Without root's rights the error says to run as user 0."""
    assert "run the sidecar as user 0" in ground.probe_elsewhere(65534)


def test_a_view_without_the_container_is_told(ground: Ground, tmp_path: Path) -> None:
    """An empty directory isn't the machine's cgroups."""
    with pytest.raises(GuardUnavailableError, match="mount the machine's /sys/fs/cgroup"):
        ground.oom_group(tmp_path).probe(ground.box.memory())


def test_v1_has_no_such_flag(v1_box: Box) -> None:
    """That is told, and that a kill takes one process there; who is in there is known all the same."""
    memory = v1_box.memory()
    with pytest.raises(GuardUnavailableError, match=r"cgroup v1 has no memory\.oom\.group"):
        OomGroup(VIEW, v1_box.journal).adopt(memory)
    assert memory.read().oom_group is False
    assert memory.read_pids() == ()
    with eater(v1_box.app) as program:
        assert memory.read_pids() == (program.process.pid,), "not what it said a moment before"
