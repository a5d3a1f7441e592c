"""Builds small /proc and cgroupfs trees: v1, v2, hybrid, with names and numbers of one's choosing."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

# `FakeProc` knows which mount its trees are in.
V1 = "MOUNT 35 0:26 {root} {point} rw,nosuid - cgroup cgroup rw,memory"
V2 = "MOUNT 35 0:27 {root} {point} rw,nosuid - cgroup2 cgroup rw"


@dataclass
class FakeProc:
    """A /proc below ``root``. The processes' own root directories are below it too."""

    root: Path
    socket_lines: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.root / "net").mkdir(parents=True)
        (self.root / "stat").write_text("cpu  1 1 1 1 1 1 1 1 1 1\nbtime 1700000000\n")
        (self.root / "net/tcp").write_text("  sl  local_address\n")

    def process(
        self,
        pid: int,
        cgroup: str,
        *,
        name: bytes = b"app",
        start_ticks: int = 100,
        uid: int = 1000,
        mountinfo: str = "",
        rss_anon_kib: int = 1024,
    ) -> Path:
        """Add a process; ``cgroup`` is the text of its cgroup file."""
        directory = self.root / str(pid)
        (directory / "fd").mkdir(parents=True, exist_ok=True)
        stat = b"%d (%s) S 1 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 1 0 %d 0 0" % (pid, name, start_ticks) + b" 0" * 30
        (directory / "stat").write_bytes(stat + b"\n")
        shown = name.replace(b"\n", b"\\n").decode("latin-1")
        (directory / "status").write_text(
            f"Name:\t{shown}\nState:\tS (sleeping)\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"
            f"Gid:\t{uid}\t{uid}\t{uid}\t{uid}\nThreads:\t1\nRssAnon:\t{rss_anon_kib:8} kB\nRssShmem:\t0 kB\n",
            encoding="latin-1",
        )
        (directory / "cmdline").write_bytes(b"/app\0--flag\0")
        (directory / "environ").write_bytes(b"GOGC=50\0SECRET=1\0")
        (directory / "cgroup").write_text(cgroup)
        (directory / "mountinfo").write_text(mountinfo.replace("MOUNT", _mount_id(directory)))
        return directory

    def own(self, cgroup: str = "0::/sidecar\n") -> None:
        """Add ourselves."""
        self.process(os.getpid(), cgroup, name=b"python")

    def listen(self, inode: int, address: str, port: int, *, file: str = "tcp") -> None:
        """Add a listening socket; ``address`` as the kernel writes it."""
        path = self.root / "net" / file
        before = path.read_text() if path.exists() else "  sl  local_address\n"
        queues = "00000000:00000000 00:00000000 00000000"
        line = f"   0: {address}:{port:04X} 00000000:0000 0A {queues}  1000        0 {inode} 1"
        path.write_text(f"{before}{line}\n")

    def hold(self, pid: int, inode: int, descriptor: int = 5) -> None:
        """Let a process hold a socket."""
        (self.root / str(pid) / "fd" / str(descriptor)).symlink_to(f"socket:[{inode}]")


def _mount_id(directory: Path) -> str:
    opened = os.open(directory, os.O_RDONLY)
    try:
        told = Path(f"/proc/self/fdinfo/{opened}").read_text()
    finally:
        os.close(opened)
    return next(line.split()[1] for line in told.splitlines() if line.startswith("mnt_id:"))


def v2_cgroup(directory: Path, *, current: int, limit: str = "max", inactive_file: int = 0, oom_kill: int = 0) -> Path:
    """The files of a v2 memory cgroup."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "memory.current").write_text(f"{current}\n")
    (directory / "memory.max").write_text(f"{limit}\n")
    (directory / "memory.stat").write_text(f"anon 1\ninactive_anon 7\ninactive_file {inactive_file}\nnew_key 3\n")
    (directory / "memory.events").write_text(f"low 0\nhigh 0\nmax 3\noom 1\noom_kill {oom_kill}\nsock_throttled 0\n")
    return directory


def v1_cgroup(
    directory: Path,
    *,
    usage: int,
    limit: int = 9223372036854771712,
    hierarchical: int = 9223372036854771712,
    inactive_file: int = 0,
    oom_kill: int = 0,
) -> Path:
    """The files of a v1 memory cgroup."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "memory.usage_in_bytes").write_text(f"{usage}\n")
    (directory / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (directory / "memory.stat").write_text(
        f"cache 1\ninactive_file 1\nhierarchical_memory_limit {hierarchical}\ntotal_inactive_file {inactive_file}\n"
    )
    (directory / "memory.oom_control").write_text(f"oom_kill_disable 0\nunder_oom 0\noom_kill {oom_kill}\n")
    return directory
