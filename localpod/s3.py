"""A store that speaks S3, on this machine, for as long as a ``with`` block lasts. It keeps objects in memory."""

from __future__ import annotations

import contextlib
import importlib.util
import select
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from localpod.errors import LocalPodError

_NEEDED = ("moto", "flask", "flask_cors")
_READY_WITHIN_S = 60.0
_END_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalS3:
    """Where the store answers, and the bucket that is in it."""

    url: str
    bucket: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point boto3 at the store, and at no other settings or credentials of this machine."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
        }


@contextlib.contextmanager
def local_s3(bucket: str = "heap-dumps") -> Iterator[LocalS3]:
    """Run the store in a process of its own, with an empty bucket; ready once an object was really written.

    Raises `LocalPodError` if a package is missing or the store doesn't get ready.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise LocalPodError(
            f"the local S3 needs {', '.join(missing)}: run make setup, or pip install moto flask flask-cors"
        )
    process = subprocess.Popen(
        [sys.executable, "-m", "localpod.s3_server"],
        cwd=Path(__file__).resolve().parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is for us alone
    )
    try:
        store = LocalS3(url=f"http://127.0.0.1:{_port(process)}", bucket=bucket)
        _prove(store)
        yield store
    finally:
        _end(process)


def _port(process: subprocess.Popen[bytes]) -> int:
    if process.stdout is None or not select.select([process.stdout], [], [], _READY_WITHIN_S)[0]:
        raise LocalPodError(
            f"the local S3 doesn't start within {_READY_WITHIN_S:g} s: try again on a less busy machine"
        )
    line = process.stdout.readline()
    if not line.strip().isdigit():
        raise LocalPodError("the local S3 ended at once: python -m localpod.s3_server tells why")
    return int(line)


def _prove(store: LocalS3) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=store.url,
        aws_access_key_id=store.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=store.environment["AWS_SECRET_ACCESS_KEY"],
        region_name=store.environment["AWS_REGION"],
        config=Config(connect_timeout=5, read_timeout=_READY_WITHIN_S, proxies={}),
    )
    try:
        client.create_bucket(Bucket=store.bucket)
        client.put_object(Bucket=store.bucket, Key="ready", Body=b"ready")
        client.delete_object(Bucket=store.bucket, Key="ready")
    except (BotoCoreError, ClientError) as error:
        raise LocalPodError(f"the local S3 at {store.url} takes no object: {error}") from None
    finally:
        client.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    try:
        process.wait(_END_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
