from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import boto3
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError

from localpod import s3
from localpod.errors import LocalPodError

ROOT = Path(__file__).resolve().parents[2]


def test_objects_are_kept_for_whoever_has_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the store's variables boto3 writes and reads the bucket, past any proxy; afterwards it is gone."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with s3.local_s3("my-dumps") as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3", config=Config(retries={"total_max_attempts": 1}))
        assert client.list_objects_v2(Bucket="my-dumps")["KeyCount"] == 0
        client.put_object(Bucket="my-dumps", Key="a/b", Body=b"profile")
        assert client.get_object(Bucket="my-dumps", Key="a/b")["Body"].read() == b"profile"
        with pytest.raises(ClientError, match="NoSuchBucket"):
            client.put_object(Bucket="other", Key="a/b", Body=b"profile")
    with pytest.raises(EndpointConnectionError):
        client.list_objects_v2(Bucket="my-dumps")
    client.close()


def test_the_store_dies_with_its_owner() -> None:
    """When the process that started the store is killed with SIGKILL, the store ends too."""
    script = """
import psutil, sys
from localpod import s3
with s3.local_s3():
    print(psutil.Process().children()[0].pid, flush=True)
    sys.stdin.read()
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        store = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
        owner.wait(30)
    assert psutil.wait_procs([store], timeout=30)[1] == []


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one of the packages the error names it and says how to get it."""
    monkeypatch.setattr(s3, "_NEEDED", ("moto", "no_such_package"))
    with pytest.raises(LocalPodError, match=r"needs no_such_package: run make setup"), s3.local_s3():
        pass
