"""The Debian packages that pods need; ``python3 -m localpod.packages`` prints those that are missing here.

Nothing but the standard library, as it is run before anything is installed.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping

FOR_NAMESPACES: Mapping[str, str] = {"unshare": "util-linux", "setpriv": "util-linux"}
"""Programs of which each is in a package: what containers of `localpod.pod` are started by."""

FOR_PODMAN: Mapping[str, str] = {
    "podman": "podman",
    "runc": "runc",
    "/usr/lib/podman/netavark": "netavark",
    "iptables": "iptables",
    "catatonit": "catatonit",
    "mmdebstrap": "mmdebstrap",
}
"""The same for `localpod.podman` and the images; nothing that these packages recommend."""

FOR_OTHER_MACHINES: Mapping[str, str] = {
    "qemu-aarch64": "qemu-user",
    "/usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1": "libc6-arm64-cross",
}
"""The same for Go programs that are built for another machine than this: an emulator, and the loader of theirs."""


def missing(programs: Mapping[str, str]) -> list[str]:
    """The packages of the programs that aren't on PATH, each once.

    >>> missing({"sh": "dash", "no-such-program": "no-such-package"})
    ['no-such-package']
    """
    return list(dict.fromkeys(package for program, package in programs.items() if shutil.which(program) is None))


if __name__ == "__main__":
    sys.stdout.write(" ".join(missing({**FOR_NAMESPACES, **FOR_PODMAN, **FOR_OTHER_MACHINES})) + "\n")
