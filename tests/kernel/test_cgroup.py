"""Memory is found and read on v1, v2 and hybrid hosts, in private and host cgroup namespaces."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.model import Container, Process
from sidecar.errors import NotPermittedError, TargetGoneError, TargetReadError
from sidecar.kernel import cgroup, cgroup_files
from sidecar.kernel.cgroup import MemoryCgroup
from sidecar.kernel.process_memory import ProcessMemory
from tests.kernel.fake_proc import V1, V2, FakeProc, v1_cgroup, v2_cgroup

DEADLINE_S = 60.0


def container(*pids: int) -> Container:
    """A container of these processes."""
    return Container(
        key="/x",
        name="app",
        processes=tuple(Process(pid=pid, created_at_s=1.0, name="app", uid=1, gid=1) for pid in pids),
    )


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    """A /proc without processes, except for a view of our own that shows nothing."""
    fake = FakeProc(tmp_path / "proc")
    (fake.root / "self").mkdir()
    (fake.root / "self/mountinfo").write_text("")
    return fake


def test_v2_with_a_private_namespace(proc: FakeProc) -> None:
    """The target's own mount shows its own cgroup at the mount point."""
    mounts = V2.format(root="/../c1", point="/sys/fs/cgroup")
    directory = proc.process(42, "0::/../c1\n", mountinfo=mounts)
    v2_cgroup(directory / "root/sys/fs/cgroup", current=900, limit="1000", inactive_file=100, oom_kill=2)
    reading = cgroup.open_cgroup(proc.root, container(42)).read()
    assert reading.usage_bytes == 900
    assert reading.working_set_bytes == 800
    assert reading.limit_bytes == 1000
    assert reading.oom_kills == 2


def test_v1_in_the_host_namespace(proc: FakeProc) -> None:
    """With the whole hierarchy mounted, the path below the mount point is followed."""
    mounts = V1.format(root="/", point="/sys/fs/cgroup/memory")
    directory = proc.process(42, "4:memory:/pods/c1\n", mountinfo=mounts)
    v1_cgroup(directory / "root/sys/fs/cgroup/memory/pods/c1", usage=900, limit=1000, inactive_file=100, oom_kill=1)
    reading = cgroup.open_cgroup(proc.root, container(42)).read()
    assert (reading.working_set_bytes, reading.limit_bytes, reading.oom_kills) == (800, 1000, 1)


def test_v1_bind_mount_of_a_container(proc: FakeProc) -> None:
    """A runtime that binds the container's own directory shows it at the mount point."""
    mounts = V1.format(root="/pods/c1", point="/sys/fs/cgroup/memory")
    directory = proc.process(42, "4:memory:/pods/c1\n", mountinfo=mounts)
    v1_cgroup(directory / "root/sys/fs/cgroup/memory", usage=5, limit=10)
    assert cgroup.open_cgroup(proc.root, container(42)).read().limit_bytes == 10


def test_hybrid_hosts_are_read_by_v1(proc: FakeProc) -> None:
    """Where the memory controller is v1's, the v2 mount beside it isn't asked."""
    mounts = "\n".join(
        (V2.format(root="/", point="/sys/fs/cgroup/unified"), V1.format(root="/", point="/sys/fs/cgroup/memory"))
    )
    directory = proc.process(42, "0::/c1\n5:memory:/c1\n", mountinfo=mounts)
    v1_cgroup(directory / "root/sys/fs/cgroup/memory/c1", usage=5, limit=10)
    opened = cgroup.open_cgroup(proc.root, container(42))
    assert opened.version == 1
    assert opened.read().usage_bytes == 5


def test_a_limit_above_counts_on_v1(tmp_path: Path) -> None:
    """A pod-level limit that is lower than the container's own is what kills."""
    directory = v1_cgroup(tmp_path / "c", usage=1, limit=2000, hierarchical=1000)
    assert MemoryCgroup(directory, 1).read().limit_bytes == 1000


def test_a_limit_of_all_pods_is_none_of_the_containers_on_v1(tmp_path: Path) -> None:
    """The kubelet limits all pods together to what the node has: a setting that says less isn't lost for that."""
    directory = v1_cgroup(tmp_path / "c", usage=1, hierarchical=15 << 30)
    assert MemoryCgroup(directory, 1, 512 << 20).read().limit_bytes == 512 << 20
    assert MemoryCgroup(directory, 1, 16 << 30).read().limit_bytes == 15 << 30


@pytest.mark.parametrize("version", [1, 2])
def test_no_limit_is_none_and_the_setting_stands_in(tmp_path: Path, version: cgroup_files.CgroupVersion) -> None:
    """``max`` and v1's huge number are no limit; an assumed one takes their place; a real one wins over it."""
    if version == 1:
        v1_cgroup(tmp_path, usage=1)
    else:
        v2_cgroup(tmp_path, current=1)
    assert MemoryCgroup(tmp_path, version).read().limit_bytes is None
    opened = MemoryCgroup(tmp_path, version, 777)
    assert opened.read().limit_bytes == 777
    (tmp_path / ("memory.max" if version == 2 else "memory.limit_in_bytes")).write_text("500\n")
    assert opened.read().limit_bytes == 500, "the limit is read anew each time"


def test_garbage_is_an_error_of_this_target(tmp_path: Path) -> None:
    """A file that says something else is reported, with where it is."""
    directory = v2_cgroup(tmp_path / "c", current=1)
    (directory / "memory.current").write_text("many\n")
    with pytest.raises(TargetReadError, match=str(directory)):
        MemoryCgroup(directory, 2).read()


def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Opening one waits for who writes into it, unless told otherwise; it is an error of this target."""
    directory = v2_cgroup(tmp_path / "c", current=1)
    (directory / "memory.stat").unlink()
    os.mkfifo(directory / "memory.stat")
    told: list[str] = []

    def look() -> None:
        with pytest.raises(TargetReadError) as error:
            MemoryCgroup(directory, 2)
        told.append(str(error.value))

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(DEADLINE_S)
    assert told == [f"{directory}: not a file of its directory's file system"]


def test_a_link_in_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    """It may lead to a file of ours, or to one without end."""
    directory = v2_cgroup(tmp_path / "c", current=1)
    (tmp_path / "processes").write_text("7\n")
    (directory / "cgroup.procs").symlink_to(tmp_path / "processes")
    source = MemoryCgroup(directory, 2)
    assert source.read_pids() is None
    source.close()
    (directory / "memory.current").rename(tmp_path / "elsewhere")
    (directory / "memory.current").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TargetReadError):
        MemoryCgroup(directory, 2)


@pytest.mark.parametrize("content", [b"x" * 100, b"7\n\xff\n", b"7\n-\n"])
def test_processes_that_are_no_numbers(tmp_path: Path, content: bytes) -> None:
    """Who is in there isn't told then, and nothing is raised."""
    directory = v2_cgroup(tmp_path / "c", current=1)
    (directory / "cgroup.procs").write_bytes(content)
    source = MemoryCgroup(directory, 2)
    assert source.read_pids() is None
    source.close()


def test_processes_without_end(tmp_path: Path) -> None:
    """Reading stops somewhere, and what came until then counts."""
    directory = v2_cgroup(tmp_path / "c", current=1)
    (directory / "cgroup.procs").write_bytes(b"0000000007\n" * 100_000)
    source = MemoryCgroup(directory, 2)
    pids = source.read_pids()
    source.close()
    assert pids is not None
    assert set(pids) == {7}
    assert len(pids) < 100_000


@pytest.mark.parametrize("where", ["", "sys", "sys/fs/cgroup"])
def test_a_link_on_the_way_is_not_followed(proc: FakeProc, tmp_path: Path, where: str) -> None:
    """What a container shows is its own to arrange, and an absolute link would lead through our own root."""
    mounts = V2.format(root="/../c1", point="/sys/fs/cgroup")
    directory = proc.process(42, "0::/../c1\n", mountinfo=mounts)
    v2_cgroup(tmp_path / "real/sys/fs/cgroup", current=1)
    link = directory / "root" / where
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "real" / where)
    if where:
        with pytest.raises(NotPermittedError):
            cgroup.open_cgroup(proc.root, container(42))
    else:  # that one is the kernel's own
        assert cgroup.open_cgroup(proc.root, container(42)).read().usage_bytes == 1


def test_what_is_not_in_the_mount_is_not_read(proc: FakeProc) -> None:
    """A tree of files that looks like a cgroup, mounted over the real one."""
    mounts = V2.replace("MOUNT", "1").format(root="/../c1", point="/sys/fs/cgroup")
    directory = proc.process(42, "0::/../c1\n", mountinfo=mounts)
    v2_cgroup(directory / "root/sys/fs/cgroup", current=1)
    with pytest.raises(NotPermittedError):
        cgroup.open_cgroup(proc.root, container(42))


def test_a_hidden_mount_does_not_hide_the_one_that_shows(proc: FakeProc) -> None:
    """Where one mount's place is taken by something else, the next is looked at."""
    hidden = V2.format(root="/", point="/taken")
    directory = proc.process(42, "0::/c1\n", mountinfo=f"{V2.format(root='/', point='/free')}\n{hidden}")
    (directory / "root").mkdir()
    (directory / "root/taken").write_text("")
    v2_cgroup(directory / "root/free/c1", current=1)
    assert cgroup.open_cgroup(proc.root, container(42)).read().usage_bytes == 1


def test_whose_cgroup_it_is_is_told_by_its_processes(proc: FakeProc) -> None:
    """Only those that /proc has in the very cgroup that was looked for; the ended and the others aren't in it."""
    mounts = V2.format(root="/../c1", point="/sys/fs/cgroup")
    directory = proc.process(42, "0::/../c1\n", mountinfo=mounts)
    proc.process(43, "0::/../c2\n")
    v2_cgroup(directory / "root/sys/fs/cgroup", current=1)
    opened = cgroup.open_cgroup(proc.root, container(42))
    assert opened.is_home_of([43, 44, 42])
    assert not opened.is_home_of([43, 44])
    assert not opened.is_home_of([])


def test_a_vanished_process_is_gone(proc: FakeProc) -> None:
    """No process left to look through: the container has ended."""
    with pytest.raises(TargetGoneError):
        cgroup.open_cgroup(proc.root, container(42))


def test_an_invisible_cgroup_names_the_remedy(proc: FakeProc) -> None:
    """No mount shows it: the message says which rights would."""
    proc.process(42, "0::/../c1\n", mountinfo="")
    with pytest.raises(NotPermittedError, match="oom-heap-dumper check"):
        cgroup.open_cgroup(proc.root, container(42))


def test_process_memory_sums_and_ends(proc: FakeProc) -> None:
    """The fallback adds up the processes that are left and ends with the last of them."""
    proc.process(1, "", rss_anon_kib=100)
    proc.process(2, "", rss_anon_kib=50)
    source = ProcessMemory(proc.root, lambda: (1, 2, 3), 1 << 20)
    assert source.read().usage_bytes == 150 << 10
    assert source.read().limit_bytes == 1 << 20
    with pytest.raises(TargetGoneError):
        ProcessMemory(proc.root, lambda: (), None).read()


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    """Opening and closing leaves no descriptor behind, also when opening fails halfway."""
    directory = v2_cgroup(tmp_path / "c", current=1)
    before = set(Path("/proc/self/fd").iterdir())
    source = MemoryCgroup(directory, 2)
    source.close()
    (directory / "memory.events").unlink()
    with pytest.raises(TargetGoneError):
        MemoryCgroup(directory, 2)
    assert len(set(Path("/proc/self/fd").iterdir())) == len(before)


@given(st.text(), st.text())
def test_parsers_survive_any_text(text: str, path: str) -> None:
    """Whatever the kernel or a forged tree says, parsing ends, and no path leads above the mount."""
    found = cgroup_files.parse_proc_cgroup(text)
    assert found is None or found[0] in (1, 2)
    for mount in (*cgroup_files.parse_mountinfo(text, 1), *cgroup_files.parse_mountinfo(text, 2)):
        assert mount.point is not None
    shown = cgroup_files.directory_in_mount(
        cgroup_files.CgroupMount(version=2, root="/a", point="/m", mount_id="1"), path
    )
    assert shown is None or (shown == "/m" or (shown.startswith("/m/") and ".." not in shown.split("/")))
    assert cgroup_files.parse_status_kib(text, "RssAnon") is None or "RssAnon" in text


@given(st.binary(), st.sampled_from([b"inactive_file", b"oom_kill"]))
def test_flat_keyed_files_survive_any_bytes(content: bytes, key: bytes) -> None:
    """A key is found only as a whole word at the start of a line."""
    value = cgroup_files.parse_flat_keyed(content, key)
    assert value is None or key + b" " in content
