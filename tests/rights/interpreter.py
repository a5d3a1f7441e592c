"""A Python that every user may run, as the image's is; that of the tests may lie in somebody's own home directory."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import sysconfig

import pytest

from tests.e2e.sidecar_run import DEADLINE_S, PROJECT
from tests.rights.security import SecurityContext

_NOBODY = SecurityContext(uid=1000, gid=1000)
# Loads what the sidecar and its uploader load, and starts itself once more, as they do.
_TRIAL = "import subprocess, sys, boto3, sidecar.cli; subprocess.run([sys.executable, '-c', ''], check=True)"

ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(PROJECT), sysconfig.get_path("purelib")])}
"""What makes it find the sidecar and its libraries."""


@functools.cache
def find() -> str:
    """The first that works for a user without any right; the test is skipped where none does."""
    said = ""
    for python in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        # The shell starts it as that user: setpriv itself still has root's capabilities when it executes a program.
        command = [*_NOBODY.wrapper(), "/bin/sh", "-c", 'exec "$0" -c "$1"', python, _TRIAL]
        tried = subprocess.run(
            command,
            env=ENVIRONMENT | {"PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        if tried.returncode == 0:
            return python
        said = tried.stderr.strip().rpartition("\n")[2]
    pytest.skip(f"no Python that another user may run: {said}")


def wrapper() -> tuple[str, ...]:
    """A command that runs what follows with that Python in place of its first word, the interpreter of the tests."""
    return ("/bin/sh", "-c", 'shift; exec "$0" "$@"', find())
