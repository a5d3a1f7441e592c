"""What the kernel lets us see of another process, and the lines of a pod spec that would grant the rest.

Nearly all of it hangs on ``ptrace_may_access`` (kernel/ptrace.c): same UID and GID in all forms, and no capability in
the target that we lack; or CAP_SYS_PTRACE. What lies in files of the target's own (fs/proc/base.c: environ, fd) needs
their permission as well. Security modules (AppArmor, SELinux, Yama) can only refuse more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.core.model import Container
from sidecar.errors import OomHeapDumperError
from sidecar.kernel import cgroup, sockets

MEMORY = "memory"
"""The right to read the memory of a process; who reads heaps finds out whether we have it."""

# include/uapi/linux/capability.h, by number.
_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)
# What Pod Security "baseline" lets a container add; SYS_PTRACE isn't among them.
_BASELINE = {
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
}
# The runtimes' defaults have this one as well, and baseline doesn't object to defaults: only to adding it.
_DEFAULT_ONLY = "NET_RAW"
_DEFAULTS = _BASELINE | {_DEFAULT_ONLY}
_NO_ONE = 3  # the ptrace_scope at which not even SYS_PTRACE helps
_FEW = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One thing we may or may not see, and what it costs not to."""

    name: str
    granted: bool
    without_it: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What the kernel compares. ``uid`` and ``gid`` are None where real, effective and saved ones differ.

    ``permitted`` are the capabilities that it may use. Who holds one that another lacks isn't shown to that one.
    """

    uid: int | None
    gid: int | None
    permitted: frozenset[str]


def parse_credentials(status: str) -> Credentials:
    r"""Read them from the text of /proc/PID/status, which anyone may read. Raises ValueError if they aren't there.

    >>> parse_credentials("Uid:\t7\t7\t7\t7\nGid:\t8\t0\t8\t8\nCapPrm:\t0000000000000400\n")
    Credentials(uid=7, gid=None, permitted=frozenset({'NET_BIND_SERVICE'}))
    """
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    try:
        return Credentials(
            uid=_only(fields["Uid"].split()[:3]),
            gid=_only(fields["Gid"].split()[:3]),
            permitted=_names(int(fields["CapPrm"], 16)),
        )
    except KeyError as error:
        raise ValueError(f"a process's status has no {error}") from error


def read_credentials(proc: Path, pid: int | str) -> Credentials | None:
    """Those of a process, or of our own with ``"self"``; None if it has ended."""
    try:
        return parse_credentials((proc / str(pid) / "status").read_text(errors="replace"))
    except (OSError, ValueError):
        return None


def read_ptrace_scope(proc: Path) -> int:
    """How far Yama restricts reading another's memory (admin-guide/LSM/Yama.rst): 0, also where there is no Yama."""
    try:
        return int((proc / "sys/kernel/yama/ptrace_scope").read_text())
    except (OSError, ValueError):
        return 0


def probe_rights(proc: Path, container: Container) -> tuple[Right, ...]:
    """Try each access on the container's main process."""
    pid = container.main.pid
    process = proc / str(pid)
    return (
        Right(
            name="cgroup",
            granted=_can(lambda: cgroup.open_cgroup(proc, container).close()),
            without_it="memory is summed over the processes, and only MEMORY_LIMIT tells the limit",
        ),
        Right(
            name="sockets",
            granted=_can(lambda: sockets.read_socket_inodes(proc, pid)),
            without_it="each port of the pod is asked whether it belongs to this process",
        ),
        Right(
            name="executable",
            granted=_can_open(process / "exe"),
            without_it="ports of programs other than Go are asked too, and dumps lack the Go version",
        ),
        Right(
            name="environment",
            granted=_can_open(process / "environ"),
            without_it="dumps lack GOMEMLIMIT, GOGC and GODEBUG",
        ),
    )


def granting_lines(
    missing: Collection[str],
    targets: Sequence[Credentials],
    own: Credentials,
    *,
    others: Sequence[Credentials] = (),
    ptrace_scope: int = 0,
) -> tuple[str, ...]:
    """The lines for the sidecar's container that grant what is missing (rights by name) beside an app. Pure.

    They go without root where user and group are enough, and without SYS_PTRACE where the app's own capabilities are.
    The rest needs root, as runtimes give a capability to root alone. ``targets`` are the app's processes, at least one;
    ``others`` are the pod's further ones, which the lines must not shut out. Lines that begin with ``#`` explain; where
    the pod's spec can't help there are only such.
    """
    everybody = (*targets, *others)
    target = next((one for one in targets if not _should_see(own, one)), targets[0])
    is_yama = MEMORY in missing and ptrace_scope > 0
    if is_yama and ptrace_scope >= _NO_ONE:
        why = f"# kernel.yama.ptrace_scope={ptrace_scope} on this node: no process may read another one's memory"
        rest = set(missing) - {MEMORY}
        return (why, *(granting_lines(rest, targets, own, others=others) if rest else ()))
    if _should_see(own, target) and not (is_yama and "SYS_PTRACE" not in own.permitted):
        return (_unexplained(missing),)
    held = frozenset[str]().union(*(one.permitted for one in everybody))
    users = {(one.uid, one.gid) for one in everybody}
    is_one_user = len(users) == 1 and None not in (target.uid, target.gid)
    if is_one_user and not is_yama and (not held or (target.uid == 0 and held <= _DEFAULTS)):
        return _context(own, target.uid, target.gid, held - own.permitted and held)
    capabilities = ["SYS_PTRACE"] + (["DAC_READ_SEARCH"] if any(one.uid != 0 for one in everybody) else [])
    lines = _context(own, 0, 0, capabilities)
    if is_yama:
        return (f"# kernel.yama.ptrace_scope={ptrace_scope} on this node: memory is shown to SYS_PTRACE only", *lines)
    if not is_one_user and not target.permitted and None not in (target.uid, target.gid):
        alone = f"runAsUser: {target.uid}, runAsGroup: {target.gid}"
        return (f"# the apps run as different users, and root may see all; for this one alone {alone}", *lines)
    if target.permitted:
        held_most = sorted(target.permitted - _DEFAULTS or target.permitted)
        what = ", ".join(held_most[:_FEW] + ["..."] * (len(held_most) > _FEW))
        return (f"# the app holds capabilities ({what}), so its user and group aren't enough", *lines)
    return lines


def _should_see(own: Credentials, target: Credentials) -> bool:
    """Whether everything of the target is shown to us, as far as user, group and capabilities tell."""
    is_same = own.uid is not None and own.gid is not None and (own.uid, own.gid) == (target.uid, target.gid)
    may_trace = (is_same and target.permitted <= own.permitted) or "SYS_PTRACE" in own.permitted
    return may_trace and (own.uid == target.uid or bool({"DAC_READ_SEARCH", "DAC_OVERRIDE"} & own.permitted))


def _unexplained(missing: Collection[str]) -> str:
    if set(missing) == {"cgroup"}:
        return "# the app's container doesn't show its cgroup: set MEMORY_LIMIT (resourceFieldRef: limits.memory)"
    return "# user, group and capabilities suffice, so AppArmor, SELinux or seccomp refuse: use the app's profile"


def _context(own: Credentials, uid: int | None, gid: int | None, capabilities: Collection[str]) -> tuple[str, ...]:
    """What differs from our own, as a securityContext."""
    lines = ["securityContext:"]
    if uid != own.uid:
        lines += (["  runAsNonRoot: false"] if uid == 0 else []) + [f"  runAsUser: {uid}"]
    if gid != own.gid:
        lines += [f"  runAsGroup: {gid}"]
    if _DEFAULT_ONLY in capabilities:
        what = 'the runtime\'s defaults, as the app has them: drop none. Nobody may add NET_RAW under "baseline"'
        lines += [f"  # {what}", "  capabilities: null"]
    elif capabilities:
        added = capabilities if isinstance(capabilities, list) else sorted(capabilities)
        lines += ["  capabilities:", f"    add: [{', '.join(added)}]"]
    return tuple(lines)


def _only(ids: list[str]) -> int | None:
    return int(ids[0]) if len(set(ids)) == 1 else None


def _names(mask: int) -> frozenset[str]:
    """The capabilities of a mask; one that is newer than our list is called by its number."""
    numbers = (number for number in range(mask.bit_length()) if mask >> number & 1)
    return frozenset(_CAPABILITIES[n] if n < len(_CAPABILITIES) else str(n) for n in numbers)


def _can(access: Callable[[], object]) -> bool:
    try:
        access()
    except (OSError, OomHeapDumperError):
        return False
    return True


def _can_open(path: Path) -> bool:
    return _can(lambda: path.open("rb").close())
