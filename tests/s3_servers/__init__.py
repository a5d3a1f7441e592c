"""S3 servers for tests, each a context manager that yields where it listens and who may call."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Endpoint:
    """How to reach a test server. ``ca_file`` is set where it speaks TLS with a certificate of our own making."""

    url: str
    access_key: str
    secret_key: str
    bucket: str
    region: str = "us-east-1"
    ca_file: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point boto3, in this process or another, at the server and at nothing else."""
        variables = {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1",
        }
        if self.ca_file is not None:
            variables["AWS_CA_BUNDLE"] = str(self.ca_file)
        return variables

    def point_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process's boto3 talk to the server, whatever the developer's own AWS settings are."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    def client(self) -> S3Client:
        """A client of the server's owner, which tries everything once."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            verify=None if self.ca_file is None else str(self.ca_file),
            config=Config(
                retries={"total_max_attempts": 1},
                connect_timeout=20,
                read_timeout=60,
                request_checksum_calculation="when_required",
                proxies={},
            ),
        )
