"""A container's securityContext, made real by setpriv as runc and crun do it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import yaml

# What containerd and Docker give a container that asks for nothing.
DEFAULT_CAPABILITIES = (
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityContext:
    """The fields that matter here, meant as in Kubernetes."""

    uid: int
    gid: int
    drop_all: bool = True
    add: tuple[str, ...] = ()
    privileged: bool = False

    def __str__(self) -> str:
        """Short, for the names of tests."""
        if self.privileged:
            return f"{self.uid}:{self.gid} privileged"
        return " ".join([f"{self.uid}:{self.gid}", "none" if self.drop_all else "default", *self.add])

    def wrapper(self) -> tuple[str, ...]:
        """The command that becomes this and then runs what follows.

        Only the bounding set has the capabilities: root gets them by execve(2), and another user gets none, as the
        ambient set stays empty.
        """
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("setpriv isn't installed: it comes with util-linux")
        user = (setpriv, f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups", "--inh-caps=-all")
        if self.privileged:
            return user
        granted = sorted({*(() if self.drop_all else DEFAULT_CAPABILITIES), *self.add})
        return (*user, f"--bounding-set={','.join(['-all', *(f'+{name.lower()}' for name in granted)])}")

    def with_lines(self, lines: Sequence[str]) -> SecurityContext:
        """This one after somebody has put the lines into the manifest. What isn't a field of it fails the test."""
        found = dict(yaml.safe_load("\n".join(lines))["securityContext"])
        by_default = "capabilities" in found and found["capabilities"] is None
        capabilities = found.pop("capabilities", {}) or {}
        uid, gid = found.pop("runAsUser", self.uid), found.pop("runAsGroup", self.gid)
        assert found.pop("runAsNonRoot", True) is (uid != 0 or self.uid == 0), lines
        add = tuple(capabilities.pop("add", () if by_default else self.add))
        assert not found, lines
        assert not capabilities, lines
        return replace(self, uid=uid, gid=gid, add=add, drop_all=self.drop_all and not by_default)
