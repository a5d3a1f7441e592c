"""The project's images, built from their own Dockerfiles without any registry.

Base images are made from the machine's Debian packages, and Python packages come from a folder that pip fills
beforehand: a build has no network. What was made is kept, by content, in the podman's ``home`` and beside it.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from localpod.base_images import bases
from localpod.pip_command import pip
from localpod.podman import Podman, output_of
from localpod.toolchain import Toolchain

REPOSITORY = Path(__file__).resolve().parent.parent
SIDECAR = "localhost/oom-heap-dumper:test"
EXAMPLE = "localhost/go-memory-leak:test"

_BUILD_WITHIN_S = 900.0


def build_sidecar(podman: Podman) -> str:
    """Build the project's Dockerfile into an image and return its name. Raises `LocalPodError` with the reason."""
    with podman.exclusively():
        builder, final = bases(podman)
        wheels = _wheelhouse(podman, final)
        pip_conf = podman.home / "pip.conf"
        pip_conf.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        arguments = {"BUILDER_IMAGE": builder, "FINAL_IMAGE": final}
        _build(podman, REPOSITORY, SIDECAR, arguments, {wheels: "/wheels", pip_conf: "/etc/pip.conf"})
        # Layers of former sources, which nothing will ask for again.
        podman.run("image", "prune", "--force", "--filter", "until=24h", timeout_s=_BUILD_WITHIN_S)
    return SIDECAR


def build_example(podman: Podman, go: Toolchain) -> str:
    """Build the example's Dockerfile, with ``go`` in place of the golang image, and return the image's name."""
    with podman.exclusively():
        builder, _ = bases(podman)
        go_cache = go.cache / "go-build"  # shared with what the toolchain builds by itself
        go_cache.mkdir(exist_ok=True)
        mounts = {go.go.resolve().parent.parent: "/usr/local/go", go_cache: "/root/.cache/go-build"}
        _build(podman, REPOSITORY / "examples" / "go-memory-leak", EXAMPLE, {"GO_IMAGE": builder}, mounts)
    return EXAMPLE


def from_scratch(podman: Podman, program: Path, name: str) -> str:
    """Put a static program, and nothing else, into an image named ``name``, which is returned; it isn't root there."""
    image = f"localhost/{name}:test"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "program").write_bytes(program.read_bytes())
        Path(folder, "program").chmod(0o755)
        entry = f'FROM scratch\nCOPY program /{name}\nUSER 65532:65532\nENTRYPOINT ["/{name}"]\n'
        Path(folder, "Dockerfile").write_text(entry)
        with podman.exclusively():
            _build(podman, Path(folder), image, {}, {})
    return image


def _build(podman: Podman, context: Path, image: str, arguments: dict[str, str], mounts: dict[Path, str]) -> None:
    """``mounts`` are read-only, except for Go's build cache."""
    command: list[str | Path] = ["build", "--quiet", "--network", "none", "--pull=never", "--format", "docker"]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    for source, target in mounts.items():
        command += ["--volume", f"{source}:{target}" + ("" if target.endswith("go-build") else ":ro")]
    podman.run(*command, "--tag", image, context, timeout_s=_BUILD_WITHIN_S)


def _wheelhouse(podman: Podman, final: str) -> Path:
    """A folder with the wheels that the Dockerfile installs, for the Python of the ``final`` base."""
    version = podman.run(
        "run", "--rm", "--network", "none", final, "python3", "-c", "import platform as p; print(p.python_version())"
    )
    series = ".".join(version.split(".")[:2])
    requirements = [REPOSITORY / "requirements" / name for name in ("runtime.txt", "build.txt")]
    content = b"".join(path.read_bytes() for path in requirements)
    folder = podman.home / "wheels" / f"{series}-{hashlib.sha256(content).hexdigest()[:12]}"
    if folder.exists():
        return folder
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wheels-", dir=folder.parent, ignore_cleanup_errors=True) as fresh:
        for path in requirements:  # apart, as the two have other needs of the same packages
            output_of(pip("download", path, "--python-version", series, "--dest", fresh))
        Path(fresh).chmod(0o755)
        return Path(fresh).rename(folder)
