"""The Python that the sidecar is measured with: an environment of what the image has, and nothing else."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from benchmarks.errors import BenchmarkError
from localpod.pip_command import pip

PROJECT = Path(__file__).resolve().parent.parent

_REQUIREMENTS = PROJECT / "requirements" / "runtime.txt"
_INSTALL_WITHIN_S = 600


def python(cache: Path) -> Path:
    """The interpreter of an environment with the locked runtime requirements and the sidecar of this tree.

    It is made below ``cache`` when there is none yet. Raises `BenchmarkError` if it can't be made.
    """
    digest = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:8]
    home = cache / f"runtime-{platform.python_version()}-{digest}"
    if not home.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".runtime-", dir=cache) as folder:
            fresh = Path(folder, "environment")
            venv.create(fresh, symlinks=True)
            _install(fresh)
            fresh.rename(home)
    interpreter = home / "bin" / "python3"
    _add_sidecar(interpreter)
    return interpreter


def _install(environment: Path) -> None:
    command = pip("install", _REQUIREMENTS, interpreter=environment / "bin" / "python3")
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=_INSTALL_WITHIN_S)
    if done.returncode != 0:
        words = " ".join(done.stderr.split())
        raise BenchmarkError(f"the sidecar's requirements can't be installed into {environment.parent}: {words}")


def _add_sidecar(interpreter: Path) -> None:
    """Let it import the sidecar of this tree, and compile that once: an image has its bytecode too."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = interpreter.parent.parent / "lib" / version / "site-packages"
    (packages / "sidecar.pth").write_text(f"{PROJECT}\n")
    command = [str(interpreter), "-m", "compileall", "-q", str(PROJECT / "sidecar")]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, timeout=_INSTALL_WITHIN_S)
