"""Containers are found, named, told apart; ourselves and the pause container are left out."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from sidecar.kernel.processes import ProcessTable
from tests.e2e.sidecar_run import wait_until
from tests.kernel.fake_proc import FakeProc

LOG_MOUNT = "9 8 0:5 /var/lib/kubelet/pods/0a-1b/containers/{}/77aa /dev/termination-log rw - ext4 /dev/sda rw"


@pytest.fixture
def proc(tmp_path: Path) -> Iterator[FakeProc]:
    """A pod: pause, ourselves, nothing else yet."""
    fake = FakeProc(tmp_path / "proc")
    fake.process(1, "0::/../pause\n", name=b"pause")
    fake.own()
    yield fake
    psutil.PROCFS_PATH = "/proc"


def test_groups_by_cgroup_and_leaves_out_pause_and_us(proc: FakeProc) -> None:
    """Two app containers, one with two processes, oldest first."""
    proc.process(20, "0::/../a\n", start_ticks=300, name=b"child")
    proc.process(30, "0::/../a\n", start_ticks=200, name=b"server")
    proc.process(40, "0::/../b\n")
    first, second = ProcessTable(proc.root).scan()
    assert [process.pid for process in first.processes] == [30, 20]
    assert first.name == "server"
    assert [process.pid for process in second.processes] == [40]


@pytest.mark.parametrize("name", [b"pause", b"catatonit", b"pod"])
def test_every_infra_container_is_left_out(proc: FakeProc, name: bytes) -> None:
    """Of Kubernetes, podman and OpenShift; an app of that name isn't, which is never PID 1."""
    proc.process(1, "0::/../pause\n", name=name)
    proc.process(20, "0::/../a\n", name=name)
    (container,) = ProcessTable(proc.root).scan()
    assert container.main.pid == 20


@pytest.mark.parametrize("name", [b"3", b"15", b"memfd:crun_clon"])
def test_crun_at_work_is_no_app(proc: FakeProc, name: bytes) -> None:
    """It runs from a descriptor, whose number or name the kernel shows; an app may be called so, too."""
    proc.process(20, "0::/../a\n", name=name)
    (proc.root / "20/cmdline").write_bytes(b"/usr/bin/crun\0init\0")
    proc.process(30, "0::/../b\n", name=name)
    (container,) = ProcessTable(proc.root).scan()
    assert container.main.pid == 30


def test_a_name_is_taken_from_mounts_that_come_later(proc: FakeProc) -> None:
    """While a runtime sets the container up; what has its name from them keeps it."""
    table = ProcessTable(proc.root)
    proc.process(20, "0::/../a\n", name=b"stage")
    assert [container.name for container in table.scan()] == ["stage"]
    proc.process(20, "0::/../a\n", name=b"app", mountinfo=LOG_MOUNT.format("api"))
    assert [container.name for container in table.scan()] == ["api"]
    proc.process(20, "0::/../a\n", name=b"app")
    assert [container.name for container in table.scan()] == ["api"]


def test_the_kubelets_mount_tells_the_name(proc: FakeProc) -> None:
    """The pod spec's name for a container, without any help of the API server."""
    proc.process(20, "0::/../a\n", mountinfo=LOG_MOUNT.format("api"))
    assert ProcessTable(proc.root).scan()[0].name == "api"


SUB_PATH = "8 7 0:5 {} /data rw - ext4 /dev/sdb rw"
CUSTOM_LOG = "9 8 0:5 {} /var/log/last-words rw - ext4 /dev/sda rw"
UID = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.mark.parametrize(
    "root", ["/containers/cache/blobs", "/pods/data/containers/cache/blobs", f"/pods/{UID}/containers/cache/1"]
)
def test_a_volume_does_not_name_a_container(proc: FakeProc, root: str) -> None:
    """A claim's subPath may look like the kubelet's folders; where it is mounted tells that it is none."""
    proc.process(20, "0::/../a\n", mountinfo=f"{SUB_PATH.format(root)}\n{LOG_MOUNT.format('api')}")
    proc.process(30, "0::/../b\n", name=b"server", mountinfo=SUB_PATH.format(root))
    assert [container.name for container in ProcessTable(proc.root).scan()] == ["api", "server"]


def test_a_termination_log_elsewhere_tells_the_name(proc: FakeProc) -> None:
    """With terminationMessagePath the kubelet's own names of its folders must do."""
    root = f"/var/lib/kubelet/pods/{UID}/containers/api/3f0c77aa"
    proc.process(20, "0::/../a\n", mountinfo=CUSTOM_LOG.format(root))
    assert ProcessTable(proc.root).scan()[0].name == "api"


def test_a_name_from_the_settings_is_for_an_only_container(proc: FakeProc) -> None:
    """CONTAINER_NAME can't name two containers at once."""
    proc.process(20, "0::/../a\n", name=b"one")
    assert ProcessTable(proc.root, container_name="api").scan()[0].name == "api"
    proc.process(30, "0::/../b\n", name=b"two")
    assert [c.name for c in ProcessTable(proc.root, container_name="api").scan()] == ["one", "two"]


def test_a_reused_pid_is_another_process(proc: FakeProc) -> None:
    """The same PID with another start time is seen with ``verify``, and the old one is no longer alive."""
    proc.process(20, "0::/../a\n", start_ticks=300)
    table = ProcessTable(proc.root)
    (before,) = table.scan()
    proc.process(20, "0::/../a\n", start_ticks=400)
    assert not table.is_alive(before.main)
    (after,) = table.scan(verify=True)
    assert after.main != before.main
    assert table.is_alive(after.main)


def test_containers_come_and_go(proc: FakeProc) -> None:
    """A later start is seen by the next scan, and so is an end."""
    table = ProcessTable(proc.root)
    assert table.scan() == ()
    directory = proc.process(20, "0::/../a\n")
    assert len(table.scan()) == 1
    directory.rename(proc.root / "gone")
    assert table.scan() == ()


@pytest.mark.parametrize("name", [b"a b) S 1 (", b"\x1b[2J", b"evil\nname", b"\xff\xfe", b"(((", b""])
def test_hostile_names_do_no_harm(proc: FakeProc, name: bytes) -> None:
    """A name is the program's choice: parentheses, newlines and escape codes don't break the parsing."""
    proc.process(20, "0::/../a\n", name=name)
    proc.process(30, "0::/../b\n", name=b"fine")
    pids = {container.main.pid for container in ProcessTable(proc.root).scan()}
    assert pids == {20, 30}


def test_three_hundred_processes(proc: FakeProc) -> None:
    """A crowded pod is grouped all the same."""
    for pid in range(100, 400):
        proc.process(pid, f"0::/../c{pid % 3}\n")
    assert [len(container.processes) for container in ProcessTable(proc.root).scan()] == [100, 100, 100]


def test_explicit_processes_are_one_container(proc: FakeProc) -> None:
    """With ``--pid`` nothing else is looked at, and our own cgroup doesn't matter."""
    proc.process(20, "0::/sidecar\n")
    proc.process(30, "0::/../b\n")
    (only,) = ProcessTable(proc.root, pids=(20,)).scan()
    assert [process.pid for process in only.processes] == [20]


def test_a_container_in_the_making_is_left_alone(proc: FakeProc) -> None:
    """The runtime's own stage isn't the app yet; after execve the same PID is."""
    proc.process(20, "0::/../a\n", name=b"runc:[2:INIT]", uid=0)
    table = ProcessTable(proc.root)
    assert table.scan() == ()
    proc.process(20, "0::/../a\n", name=b"server", uid=1000)
    assert [(c.main.name, c.main.uid) for c in table.scan()] == [("server", 1000)]


def test_a_script_that_becomes_the_app_is_known_by_its_new_name(proc: FakeProc) -> None:
    """Its execve keeps PID and start time; with ``verify`` name and user are read anew."""
    proc.process(20, "0::/../a\n", name=b"sh", uid=0)
    table = ProcessTable(proc.root)
    table.scan()
    proc.process(20, "0::/../a\n", name=b"server", uid=1000)
    assert table.scan(verify=True)[0].main.name == "server"


def test_a_process_that_renames_itself_stays_alive(proc: FakeProc) -> None:
    """Name and user are for showing: a capture goes on, before and after the next verifying scan."""
    proc.process(20, "0::/../a\n", name=b"server", uid=0)
    table = ProcessTable(proc.root)
    (before,) = table.scan()
    proc.process(20, "0::/../a\n", name=b"server: busy", uid=1000)
    assert table.is_alive(before.main)
    (after,) = table.scan(verify=True)
    assert (after.main.name, after.main.uid, after.main.gid) == ("server: busy", 1000, 1000)
    assert after.main == before.main
    assert len({before.main, after.main}) == 1
    assert table.is_alive(before.main)


def test_a_process_that_changes_its_cgroup_changes_its_container(proc: FakeProc) -> None:
    """Its identity stays; with ``verify`` it is counted where it is now."""
    proc.process(20, "0::/../a\n")
    table = ProcessTable(proc.root)
    (before,) = table.scan()
    proc.process(20, "0::/../b\n")
    assert table.is_alive(before.main)
    (after,) = table.scan(verify=True)
    assert after.key != before.key
    assert after.main == before.main


@pytest.mark.parametrize("change", ["zombie", "gone"])
def test_a_process_that_ended_is_not_alive(proc: FakeProc, change: str) -> None:
    """A zombie runs nothing any more, and a vanished process neither."""
    directory = proc.process(20, "0::/../a\n")
    table = ProcessTable(proc.root)
    (before,) = table.scan()
    if change == "gone":
        directory.rename(proc.root / "gone")
    else:
        stat = (directory / "stat").read_bytes()
        (directory / "stat").write_bytes(stat.replace(b") S ", b") Z "))
        (directory / "status").write_text((directory / "status").read_text().replace("S (sleeping)", "Z (zombie)"))
    assert not table.is_alive(before.main)
    assert table.scan(verify=True) == ()


def is_called(table: ProcessTable, name: str) -> bool:
    """Whether the only process is by now."""
    (found,) = table.scan()
    return found.main.name == name


def test_a_name_that_the_kernel_has_cut_is_completed(tmp_path: Path) -> None:
    """It keeps 15 bytes of it; the first argument has the rest, unless the program calls itself otherwise."""
    program = tmp_path / "payments-reconciler"
    program.symlink_to("/bin/sleep")
    for arguments, name in (([str(program), "600"], program.name), (["other", "600"], program.name[:15])):
        with subprocess.Popen(arguments, executable=program) as process:
            try:
                table = ProcessTable(Path("/proc"), pids=(process.pid,))
                # An exec shows the name a moment before the arguments.
                wait_until(f"it is called {name}", partial(is_called, table, name))
            finally:
                process.kill()
