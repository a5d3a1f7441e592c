"""The images that stand for the Dockerfiles' bases, made from the machine's Debian packages.

They are kept under names that tell the content: apt's sources, and the recipe, which is this file.
"""

from __future__ import annotations

import hashlib
import io
import platform
import tarfile
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from localpod.errors import LocalPodError
from localpod.podman import Podman, output_of

_IMPORT_WITHIN_S = 300.0
_PATH = "/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What the final stage needs of Debian: the interpreter, its standard library and the C libraries below them. Without a
# shell, a package manager or anything else to run, as in the distroless image that the Dockerfile names.
_RUNTIME_PACKAGES = ("python3", "libpython3-stdlib", "netbase")
_RUNTIME_FILES = ("usr/bin/python3", "usr/lib/python3", "usr/lib/*-linux-*", "lib/*-linux-*", "lib64/*", "usr/lib64/*")
_RUNTIME_SETTINGS = ("etc/python3*", "etc/ssl", "etc/services", "etc/protocols", "etc/mime.types")
_PASSWD = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"

_BUILDER_PACKAGES = ("python3", "python3-pip")
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


def bases(podman: Podman) -> tuple[str, str]:
    """The images that stand for the builder and for the final image's base, from the same Debian release."""
    sources = _debian_sources()
    recipe = Path(__file__).read_bytes() + sources.encode()
    key = hashlib.sha256(recipe).hexdigest()[:12]
    builder, final = (f"localhost/base-{role}:{key}" for role in ("builder", "final"))
    with ThreadPoolExecutor(2) as pool:  # a child process each
        made = [
            pool.submit(_make_base, podman, name, sources, role)
            for name, role in ((builder, "builder"), (final, "final"))
            if not podman.has_image(name)
        ]
    for future in made:
        future.result()
    if made:
        _remove_all_but(podman, (builder, final))
    return builder, final


def _remove_all_but(podman: Podman, kept: tuple[str, str]) -> None:
    """Forget the bases of former recipes."""
    names = podman.run(
        "images", "--filter", "reference=localhost/base-*", "--format", "{{.Repository}}:{{.Tag}}"
    ).split()
    for name in set(names).difference(kept):
        podman.attempt("rmi", name)


def _make_base(podman: Podman, name: str, sources: str, role: str) -> None:
    with tempfile.TemporaryDirectory(prefix="base-") as folder:
        packed = Path(folder, "packed.tar")
        if role == "builder":
            _debian(packed, sources, "minbase", _BUILDER_PACKAGES)
        else:
            unpacked = Path(folder, "extracted.tar")
            _debian(unpacked, sources, "extract", _RUNTIME_PACKAGES)
            keep_the_runtime(unpacked, packed)
        podman.run("import", "--quiet", "--change", f"ENV PATH={_PATH}", packed, name, timeout_s=_IMPORT_WITHIN_S)


def _debian(target: Path, sources: str, variant: str, packages: Iterable[str]) -> None:
    """Make a root file system of Debian packages, by the machine's own apt sources and settings for them."""
    settings = output_of(["apt-config", "dump", "--format", '%F "%v";%n', "Acquire"])
    options = [
        f"--aptopt={line}" for line in settings.splitlines() if '""' not in line and "::IndexTargets" not in line
    ]
    options += [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    command = ["mmdebstrap", "--quiet", f"--variant={variant}", f"--include={','.join(packages)}", *options]
    output_of([*command, suite, str(target), "-"], sources)


def keep_the_runtime(source: Path, target: Path) -> None:
    """Copy, from one tar file to another, only what a Python program needs, and lay out its users and /tmp."""
    with tarfile.open(source) as unpacked, tarfile.open(target, "w") as packed:
        tops = set()
        for member in unpacked:
            path = member.name.removeprefix("./")
            if is_of_the_runtime(path):
                tops.add(path.partition("/")[0])
                packed.addfile(member, unpacked.extractfile(member) if member.isreg() else None)
        for top in {"lib", "lib64"} - tops:  # newer releases of Debian have all of it below /usr
            packed.addfile(_entry(top, tarfile.SYMTYPE, linkname=f"usr/{top}"))
        packed.addfile(_entry("tmp", tarfile.DIRTYPE, mode=0o1777))
        packed.addfile(_entry("etc/passwd", tarfile.REGTYPE, size=len(_PASSWD)), io.BytesIO(_PASSWD.encode()))


def is_of_the_runtime(path: str) -> bool:
    """Whether a file of Debian's packages belongs into the final image.

    >>> [is_of_the_runtime(path) for path in ("usr/bin/python3.11", "usr/lib/python3.11/abc.py", "lib64/ld-linux.so.2")]
    [True, True, True]
    >>> [is_of_the_runtime(path) for path in ("bin/tar", "usr/bin/dpkg", "usr/sbin/rmt", "usr/lib/dpkg/methods")]
    [False, False, False, False]
    """
    return any(_is_below(path, pattern) for pattern in (*_RUNTIME_FILES, *_RUNTIME_SETTINGS))


def _is_below(path: str, pattern: str) -> bool:
    parts, patterns = Path(path).parts, Path(pattern).parts
    if len(parts) < len(patterns):
        return False
    last = patterns[-1] if pattern.startswith("etc") else patterns[-1] + "*"
    return parts[: len(patterns) - 1] == patterns[:-1] and Path(parts[len(patterns) - 1]).match(last)


def _entry(name: str, kind: bytes, *, mode: int = 0o755, linkname: str = "", size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname, entry.size = kind, mode, linkname, size
    return entry


def _debian_sources() -> str:
    """The machine's sources of its own distribution, without those of other vendors, as lines of sources.list."""
    vendor = platform.freedesktop_os_release()["ID"]
    words = "$(ORIGIN) deb $(REPO_URI) $(CODENAME) $(COMPONENT)"
    lines = output_of(["apt-get", "indextargets", "--format", words, "Created-By: Packages"]).splitlines()
    ours = [line.partition(" ")[2] for line in lines if line.split()[0].casefold() == vendor]
    if not ours:
        raise LocalPodError(f"apt knows no packages of {vendor}: run apt-get update")
    return "".join(f"{line}\n" for line in sorted(set(ours)))
