"""Data flows one way: which room may import which, and what the resident process may not carry."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SIDECAR = Path(__file__).resolve().parents[1] / "sidecar"

# A room may import itself, what is listed here, and anything outside of the package.
ALLOWED = {
    "core": {"errors"},
    "kernel": {"core", "errors"},
    "goheap": {"core", "errors", "kernel"},
    "guard": {"core", "errors", "kernel", "logs"},
    "stores": {"core", "errors"},
    "settings": {"core", "stores"},
    "logs": {"core", "settings"},
    "pprof": {"errors", "settings"},
    "spool": {"core", "errors"},
    "capture": {"core", "errors", "spool", "heap_encoder", "published_profile"},
    "published_profile": {"core", "errors", "spool"},
    "heap_encoder": {"errors"},
    "drain": {"core", "errors", "stores"},
    "uploader_process": {"drain"},
    "inject": {"core", "errors", "option_types", "variables"},
    "webhook": {"core", "errors", "inject", "logs"},
    "watch": {
        *("core", "errors", "kernel", "stores", "settings", "logs", "pprof", "spool", "capture"),
        *("uploader_process", "goheap", "guard", "heap_encoder", "published_profile"),
    },
}


def imports_of(path: Path) -> set[str]:
    """First name below ``sidecar`` of each import of a module, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "sidecar" else [f"sidecar.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("sidecar.")}
    return found - {"__version__"}


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_rooms_import_only_what_they_may(room: str) -> None:
    """Core knows no adapter, adapters don't know each other."""
    single = SIDECAR / f"{room}.py"
    for path in [single] if single.exists() else sorted((SIDECAR / room).glob("*.py")):
        assert imports_of(path) <= ALLOWED[room] | {room}, path


def test_nothing_imports_the_command_line() -> None:
    """Only the entry point knows ``cli``, and only ``cli`` knows the commands."""
    for path in SIDECAR.rglob("*.py"):
        if path.name != "__main__.py":
            assert "cli" not in imports_of(path), path
        if path.parent.name != "commands" and path.name != "cli.py":
            assert "commands" not in imports_of(path), path


def test_the_core_touches_no_world() -> None:
    """No clock, file, network or process in the core."""
    forbidden = {"os", "time", "socket", "subprocess", "threading", "pathlib", "random", "httpcore", "boto3", "psutil"}
    for path in (SIDECAR / "core").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not forbidden & {name.split(".")[0] for name in names}, path


def test_the_resident_process_carries_nothing_heavy() -> None:
    """What ``watch`` imports brings in neither boto3 nor YAML nor a server, with the bucket option used as well."""
    code = (
        "import sys, sidecar.commands.watch;"
        "heavy = {'boto3', 'botocore', 'tenacity', 'asyncio', 'multiprocessing', 'yaml', 'uvicorn'};"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_rooms_stay_small() -> None:
    """A file that outgrows this has found a second concern."""
    for path in SIDECAR.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 320, path
