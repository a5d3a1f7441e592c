"""What is in the sidecar's image and what isn't."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest

from localpod.podman import Podman
from sidecar import __version__
from tests.e2e.sidecar_run import PROJECT
from tests.pod.conftest import Images

MOST_BYTES = 82_000_000

# As in the manifests of k8s/.
LOCKED_DOWN = ("--rm", "--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--network=none")


@pytest.fixture(scope="session")
def files(podman: Podman, built: Images, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tarfile.TarInfo]:
    """Every file of the image by its path."""
    target = tmp_path_factory.mktemp("image") / "files.tar"
    container = podman.run("create", built.sidecar).strip()
    try:
        podman.run("export", "--output", target, container)
    finally:
        podman.run("rm", container)
    with tarfile.open(target) as archive:
        return {member.name.removeprefix("./"): member for member in archive}


def test_it_is_small(podman: Podman, built: Images) -> None:
    """The image stays below what the README says of it."""
    assert podman.inspect("image", built.sidecar)["Size"] < MOST_BYTES


def test_it_runs_locked_down(podman: Podman, built: Images) -> None:
    """Not root, a read-only root file system, no capability: it starts all the same."""
    assert podman.run("run", *LOCKED_DOWN, built.sidecar, "--version").strip().endswith(__version__)
    probe = "import os, pathlib; print(os.getuid(), os.getgid(), pathlib.Path('/proc/self/status').read_text())"
    said = podman.run("run", *LOCKED_DOWN, "--entrypoint", "python3", built.sidecar, "-c", probe)
    assert said.startswith("65532 65532 ")
    assert re.search(r"^CapBnd:\t0+$", said, re.MULTILINE)


def test_it_has_nothing_to_run_but_python(files: dict[str, tarfile.TarInfo]) -> None:
    """No shell, no package manager, no other tool: every program on PATH is Python or the sidecar itself."""
    folders = {"bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin", "opt/oom-heap-dumper/bin"}
    programs = {
        Path(name).name for name, file in files.items() if str(Path(name).parent) in folders and not file.isdir()
    }
    assert {name for name in programs if not re.fullmatch(r"python3?(\.\d+)?", name)} == {"oom-heap-dumper"}


def test_only_runtime_dependencies_are_inside(files: dict[str, tarfile.TarInfo]) -> None:
    """The installed distributions are those of requirements/runtime.txt and the sidecar, at the locked versions."""
    found = {
        match[1].lower().replace("_", "-"): match[2]
        for name in files
        if (match := re.search(r"(?:site|dist)-packages/([^/]+?)-([^-/]+)\.dist-info/METADATA$", name))
    }
    locked = (PROJECT / "requirements" / "runtime.txt").read_text()
    expected = dict(re.findall(r"^([a-z0-9_.-]+)==([^\s;]+)(?! ; sys_platform == 'win32')", locked, re.MULTILINE))
    assert found.pop("oom-heap-dumper") == __version__
    assert found == {name: expected[name] for name in found}
    assert {"boto3", "click", "httpcore", "psutil", "tenacity"} <= set(found)


def test_no_file_is_for_everybody_to_write(files: dict[str, tarfile.TarInfo]) -> None:
    """Nothing but /tmp and its own two folders, whatever user it runs as, and these with the sticky bit."""
    regular = {name: file for name, file in files.items() if not file.issym()}
    own = {"var/spool/oom-heap-dumper", "var/lib/oom-heap-dumper"}
    assert {name.rstrip("/") for name, file in regular.items() if file.mode & 0o002} <= {"tmp", *own}
    assert not [name for name, file in regular.items() if file.mode & 0o6000]
    for folder in own:
        assert (files[folder].uid, files[folder].gid, files[folder].mode & 0o7777) == (65532, 65532, 0o1777)


def test_its_labels_and_probe_are_set(podman: Podman, built: Images) -> None:
    """Whoever finds the image learns what it is, and Docker how to ask whether it lives."""
    config = podman.inspect("image", built.sidecar)
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["HealthcheckConfig" if "HealthcheckConfig" in config else "Healthcheck"]["Test"][-1] == "health", (
        json.dumps(config)
    )
