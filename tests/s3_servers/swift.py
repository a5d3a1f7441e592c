"""OpenStack Swift with its S3 API: a real store that verifies signatures and keeps what it confirmed.

All of it runs on loopback, as five daemons of one machine with one disk and one copy of everything: account, container
and object server, and a proxy for HTTP and one for HTTPS before the same data. It is installed once, with locked
versions, into a virtual environment of its own under the repository's ``.cache``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from localpod.pip_command import pip
from tests.s3_servers import S3Endpoint
from tests.s3_servers.certificates import write_certificates

_REQUIREMENTS = Path(__file__).with_name("swift-requirements.txt")
_CACHE = Path(__file__).parents[2] / ".cache" / "swift"
_START_DEADLINE_S = 180.0
_STOP_DEADLINE_S = 30.0
_BUCKET = "dumps"


class SwiftUnavailableError(Exception):
    """Swift can't run here; the message says why, for a test to skip with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwiftServer:
    """Two doors to one store, and a user who is known but allowed nothing."""

    http: S3Endpoint
    https: S3Endpoint
    powerless_access_key: str = "test:powerless"
    powerless_secret_key: str = "powerless-secret"


@contextlib.contextmanager
def swift_server(directory: Path, *, listen: str = "127.0.0.1") -> Iterator[SwiftServer]:
    """Run Swift with its data in ``directory`` until the block ends; the bucket ``dumps`` exists.

    ``listen`` is where the proxies listen, for callers that aren't on loopback. Raises SwiftUnavailableError.
    """
    _require_xattrs(directory)
    programs = install()
    ports = dict(zip(("account", "container", "object", "http", "https"), _free_ports(5), strict=True))
    configurations = _configure(programs, directory, ports, listen)
    with contextlib.ExitStack() as daemons:
        for name, configuration in configurations.items():
            program = "proxy" if name.startswith("http") else name
            daemons.enter_context(_daemon(programs / f"swift-{program}-server", configuration))
        server = SwiftServer(
            http=_endpoint(f"http://127.0.0.1:{ports['http']}"),
            https=_endpoint(f"https://127.0.0.1:{ports['https']}", directory / "authority.pem"),
        )
        _await_ready(server, directory)
        yield server


@contextlib.contextmanager
def swift_or_skip(directory: Path) -> Iterator[SwiftServer]:
    """The same for a fixture: the tests that ask for it are skipped where Swift can't run."""
    try:
        with swift_server(directory) as server:
            yield server
    except SwiftUnavailableError as error:
        pytest.skip(f"no Swift here: {error}")


def _endpoint(url: str, ca_file: Path | None = None) -> S3Endpoint:
    return S3Endpoint(url=url, access_key="test:admin", secret_key="admin-secret", bucket=_BUCKET, ca_file=ca_file)


def _require_xattrs(directory: Path) -> None:
    try:
        os.setxattr(directory, "user.swift.probe", b"1")
    except OSError as error:
        raise SwiftUnavailableError(f"Swift needs extended attributes and {directory} has none: {error}") from error


def install() -> Path:
    """Install Swift unless these very versions are there already; return where its programs are.

    Raises SwiftUnavailableError.
    """
    environment = _CACHE / f"python{sys.version_info.major}.{sys.version_info.minor}"
    stamp = environment / "installed-requirements.txt"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_bytes() != _REQUIREMENTS.read_bytes():
            shutil.rmtree(environment, ignore_errors=True)
            _run(sys.executable, "-m", "venv", environment)
            _run(*pip("install", _REQUIREMENTS, interpreter=environment / "bin" / "python"))
            shutil.copyfile(_REQUIREMENTS, stamp)
    return environment / "bin"


def _run(*command: str | Path) -> None:
    finished = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if finished.returncode:
        reason = (finished.stderr.strip() or finished.stdout.strip() or "no output").splitlines()[-1]
        raise SwiftUnavailableError(f"{Path(command[0]).name} failed with {finished.returncode}: {reason}")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _configure(programs: Path, directory: Path, ports: dict[str, int], listen: str) -> dict[str, Path]:
    """Write rings, certificates and the configuration of each daemon, by name."""
    (directory / "devices" / "disk").mkdir(parents=True)
    (directory / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = test\n[storage-policy:0]\nname = only\ndefault = yes\n"
    )
    for kind in ("account", "container", "object"):
        ring = [programs / "swift-ring-builder", directory / f"{kind}.builder"]
        _run(*ring, "create", "1", "1", "0")
        _run(*ring, "add", f"r1z1-127.0.0.1:{ports[kind]}/disk", "1")
        _run(*ring, "rebalance")
    certificates = write_certificates(directory)
    tls = {"cert_file": str(certificates.certificate), "key_file": str(certificates.key)}
    common = {"user": pwd.getpwuid(os.geteuid()).pw_name, "swift_dir": str(directory), "workers": "0"}
    storage = {"devices": str(directory / "devices"), "mount_check": "false", "bind_ip": "127.0.0.1"}
    files = {}
    for name, port in ports.items():
        kind = "proxy" if name.startswith("http") else name
        own = (storage if kind == name else {"bind_ip": listen}) | (tls if name == "https" else {})
        lines = ["[DEFAULT]", *(f"{key} = {value}" for key, value in (common | own | {"bind_port": port}).items())]
        lines += ["[pipeline:main]", f"pipeline = {_PIPELINES.get(kind, f'{kind}-server')}"]
        lines += [f"[app:{kind}-server]", f"use = egg:swift#{kind}"]
        files[name] = directory / f"{name}.conf"
        files[name].write_text("\n".join(lines) + (_PROXY_REST if kind == "proxy" else "\n"))
    return files


_PIPELINES = {"proxy": "catch_errors proxy-logging s3api tempauth slo proxy-server"}
_PROXY_REST = """
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:slo]
use = egg:swift#slo
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_admin = admin-secret .admin
user_test_powerless = powerless-secret
"""


@contextlib.contextmanager
def _daemon(program: Path, configuration: Path) -> Iterator[None]:
    with configuration.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            [program, configuration, "--verbose"], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(server: SwiftServer, directory: Path) -> None:
    """Wait until both doors take a real object: open ports alone prove nothing here."""
    deadline = time.monotonic() + _START_DEADLINE_S
    for endpoint in (server.http, server.https):
        client = endpoint.client()
        while True:
            try:
                if endpoint is server.http:
                    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):  # by the try before
                        client.create_bucket(Bucket=_BUCKET)
                client.put_object(Bucket=_BUCKET, Key="ready", Body=b"ready")
                client.delete_object(Bucket=_BUCKET, Key="ready")
                break
            except (BotoCoreError, ClientError) as error:
                if time.monotonic() > deadline:
                    logs = "\n".join(log.read_text()[-2000:] for log in sorted(directory.glob("*.log")))
                    raise SwiftUnavailableError(f"Swift didn't get ready: {error}\n{logs}") from error
                time.sleep(0.1)
        client.close()
