"""What is told to add to a pod spec; tests/rights shows in real pods that it helps."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sidecar.kernel.rights import (
    Credentials,
    granting_lines,
    parse_credentials,
    read_credentials,
    read_ptrace_scope,
)

ALL = ("cgroup", "sockets", "executable", "environment", "memory")
DEFAULTS = frozenset({"CHOWN", "DAC_OVERRIDE", "KILL", "NET_RAW"})
ROOT_WITH_PTRACE = (
    "securityContext:",
    "  runAsNonRoot: false",
    "  runAsUser: 0",
    "  runAsGroup: 0",
    "  capabilities:",
    "    add: [SYS_PTRACE, DAC_READ_SEARCH]",
)


def who(uid: int | None, gid: int | None = None, *permitted: str) -> Credentials:
    """Credentials; the group is the user's number unless told."""
    return Credentials(uid=uid, gid=uid if gid is None else gid, permitted=frozenset(permitted))


@pytest.mark.parametrize(
    ("own", "target", "lines"),
    [
        (who(1), who(7, 8), ("securityContext:", "  runAsUser: 7", "  runAsGroup: 8")),
        (who(7, 1), who(7, 8), ("securityContext:", "  runAsGroup: 8")),
        (who(0), who(7, 8), ("securityContext:", "  runAsUser: 7", "  runAsGroup: 8")),
        (who(0, 0, "SYS_PTRACE"), who(7, 8), ("securityContext:", "  runAsUser: 7", "  runAsGroup: 8")),
        (who(1), who(0), ("securityContext:", "  runAsNonRoot: false", "  runAsUser: 0", "  runAsGroup: 0")),
        (who(0), who(0, 0, "KILL", "CHOWN"), ("securityContext:", "  capabilities:", "    add: [CHOWN, KILL]")),
        (
            who(1),
            who(0, 0, "CHOWN"),
            (
                *("securityContext:", "  runAsNonRoot: false", "  runAsUser: 0", "  runAsGroup: 0"),
                *("  capabilities:", "    add: [CHOWN]"),
            ),
        ),
        (who(0, 1, *DEFAULTS), who(0, 0, *DEFAULTS), ("securityContext:", "  runAsGroup: 0")),
    ],
)
def test_the_least_that_grants_it(own: Credentials, target: Credentials, lines: tuple[str, ...]) -> None:
    """The app's user and group where they do, its own capabilities beside root; and only what differs."""
    assert granting_lines(ALL, [target], own) == lines


@pytest.mark.parametrize("own", [who(0), who(1)])
def test_beside_the_defaults_of_the_runtime_none_is_named(own: Credentials) -> None:
    """Pod Security "baseline" lets nobody add NET_RAW, which is among the defaults, but it lets one keep them."""
    lines = granting_lines(ALL, [who(0, 0, *DEFAULTS)], own)
    said = yaml.safe_load("\n".join(lines))["securityContext"]
    assert said.pop("capabilities") is None
    assert said == ({} if own.uid == 0 else {"runAsNonRoot": False, "runAsUser": 0, "runAsGroup": 0})
    assert "NET_RAW" in next(line for line in lines if line.lstrip().startswith("#"))


def test_an_app_with_a_capability_takes_root() -> None:
    """A user can't be given the capability that the app holds: the line says which one stands in the way."""
    why, *lines = granting_lines(ALL, [who(7, 7, "NET_ADMIN")], who(7))
    assert why.startswith("# the app holds capabilities (NET_ADMIN)")
    assert tuple(lines) == ROOT_WITH_PTRACE


def test_a_root_app_with_more_than_a_namespace_may_allow_takes_one_capability() -> None:
    """SYS_PTRACE instead of all that the app has; its files are root's own, so nothing more is needed."""
    why, *lines = granting_lines(ALL, [who(0, 0, "SYS_ADMIN", *DEFAULTS)], who(0))
    assert "SYS_ADMIN" in why
    assert lines == ["securityContext:", "  capabilities:", "    add: [SYS_PTRACE]"]


def test_an_app_that_changes_its_user_takes_root() -> None:
    """Real and effective user differ, so none is the same as both."""
    assert granting_lines(ALL, [who(None, 7)], who(7)) == ROOT_WITH_PTRACE


def test_another_app_is_not_shut_out() -> None:
    """The lines for one user would take away what is seen of the other: both are thought of, and the choice is told."""
    why, *lines = granting_lines(ALL, [who(7)], who(8), others=[who(8)])
    assert "runAsUser: 7, runAsGroup: 7" in why
    assert tuple(lines) == ROOT_WITH_PTRACE


def test_the_process_that_is_hidden_counts() -> None:
    """The main process is ours to see, a child of another user isn't: no word of security modules."""
    assert granting_lines(ALL, [who(7), who(8)], who(7))[-6:] == ROOT_WITH_PTRACE


@pytest.mark.parametrize("scope", [1, 2])
def test_yama_keeps_memory_from_equals(scope: int) -> None:
    """All but the memory is seen: only SYS_PTRACE helps, and it is said why."""
    why, *lines = granting_lines(["memory"], [who(7)], who(7), ptrace_scope=scope)
    assert f"ptrace_scope={scope}" in why
    assert tuple(lines) == ROOT_WITH_PTRACE


def test_yama_can_keep_memory_from_everybody() -> None:
    """No line helps with the memory; what else is missing is still told."""
    (why,) = granting_lines(["memory"], [who(7)], who(7), ptrace_scope=3)
    assert why.startswith("# kernel.yama.ptrace_scope=3")
    assert granting_lines(ALL, [who(7)], who(1), ptrace_scope=3) == (
        why,
        "securityContext:",
        "  runAsUser: 7",
        "  runAsGroup: 7",
    )


def test_what_user_and_group_do_not_explain() -> None:
    """Nothing is told to add that is there already: something else refuses."""
    (memory,) = granting_lines(["memory"], [who(7)], who(7))
    assert memory.startswith("#")
    assert "AppArmor" in memory
    (cgroup,) = granting_lines(["cgroup"], [who(7)], who(7))
    assert "MEMORY_LIMIT" in cgroup


def test_credentials_of_a_real_process() -> None:
    """Our own status can be read, with names for the capabilities."""
    own = read_credentials(Path("/proc"), "self")
    assert own is not None
    assert own.uid is not None
    assert not {name for name in own.permitted if name.isdigit() and int(name) <= 40}


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """A process that has ended has no credentials; a kernel without Yama restricts nothing."""
    assert read_credentials(tmp_path, 7) is None
    assert read_ptrace_scope(tmp_path) == 0
    with pytest.raises(ValueError, match="CapPrm"):
        parse_credentials("Uid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\n")


def test_capabilities_have_their_kernel_numbers() -> None:
    """CAP_SYS_PTRACE is 19, CAP_CHECKPOINT_RESTORE 40; one that came later is called by its number."""
    mask = f"{1 << 0 | 1 << 19 | 1 << 40 | 1 << 45:x}"
    found = parse_credentials(f"Uid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\nCapPrm:\t{mask}\n")
    assert found.permitted == {"CHOWN", "SYS_PTRACE", "CHECKPOINT_RESTORE", "45"}


def test_the_scope_is_read_where_yama_is(tmp_path: Path) -> None:
    """From /proc/sys."""
    path = tmp_path / "sys/kernel/yama/ptrace_scope"
    path.parent.mkdir(parents=True)
    path.write_text("2\n")
    assert read_ptrace_scope(tmp_path) == 2
