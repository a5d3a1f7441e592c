"""Dumps in S3 or in what speaks its protocol, through boto3.

Each object is one PUT, for objects are small. boto3's own retries are off: transient faults are tried again here and
nowhere else. Every request is described before it is sent, so that a failure can say which right is missing on what.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import boto3
import tenacity
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from sidecar import __version__
from sidecar.core.keys import join_key
from sidecar.errors import NotFoundError, StoreError
from sidecar.stores import StoredObject, StoreSettings
from sidecar.stores.errors import ObjectRefusedError
from sidecar.stores.s3_errors import BOTO_ERRORS, S3Request, status_of, translate

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, ListObjectsV2OutputTypeDef

_AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws")
_CHUNK_BYTES = 64 * 1024
_ATTEMPTS = 5
_RETRY_FOR_S = 15.0
_TAKEN = 412  # what a conditional PUT gets where the key exists

_CONTENT_TYPES = {".json": "application/json", ".txt": "text/plain; charset=utf-8"}
_Answer = TypeVar("_Answer")


class S3Store:
    """A bucket. Credentials, region and endpoint come from the environment, as boto3 finds them."""

    def __init__(self, settings: StoreSettings, *, sleep: Callable[[float], None] = time.sleep) -> None:
        if not settings.bucket:
            raise ValueError("S3Store needs a bucket")
        self._bucket: str = settings.bucket
        self._settings = settings
        self._sleep = sleep

    @property
    def location(self) -> str:
        """The bucket and prefix as an ``s3://`` address."""
        return f"s3://{join_key(self._bucket, self._settings.prefix)}"

    def put(self, key: str, source: Path) -> None:
        """Upload ``source``. Succeeds where an earlier try of ours had arrived without our hearing of it."""

        def send() -> None:
            with _opened(source) as body:
                self._put_once(key, body, os.fstat(body.fileno()).st_size)

        self._call("s3:PutObject", key, send)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """The objects below a prefix, a page of a thousand at a time."""
        resume: dict[str, Any] = {}
        while True:
            page = self._call("s3:ListBucket", prefix, partial(self._page, prefix, resume))
            for item in page.get("Contents", []):
                yield StoredObject(key=item["Key"], size_bytes=item["Size"], modified=item["LastModified"])
            token = page.get("NextContinuationToken")
            if not token:
                return
            resume = {"ContinuationToken": token}

    def read(self, key: str, offset: int = 0) -> Iterator[bytes]:
        """The bytes of an object from ``offset`` on, over as many connections as it takes while each brings some."""
        position, fruitless = offset, 0
        while True:
            answer = self._call("s3:GetObject", key, partial(self._open, key, position))
            if answer is None:
                return
            begin, body = position, answer["Body"]
            # a store that ignores Range sends it all
            surplus = 0 if answer["ResponseMetadata"]["HTTPStatusCode"] == 206 else position
            try:
                for chunk in body.iter_chunks(_CHUNK_BYTES):
                    fresh = chunk[surplus:]
                    surplus -= len(chunk) - len(fresh)
                    position += len(fresh)
                    if fresh:
                        yield fresh
            except BOTO_ERRORS as error:
                fruitless = fruitless + 1 if position == begin else 0
                if fruitless == _ATTEMPTS:
                    raise translate(error, self._request("s3:GetObject", key)) from error
            else:
                return
            finally:
                body.close()

    def probe(self, key: str) -> None:
        """Write a few bytes as ``key``; the right to delete them again isn't needed."""

        def send() -> None:
            try:
                self._put_object(key, b"oom-heap-dumper was here to see whether it may write\n")
            except ClientError as error:
                if status_of(error) != _TAKEN:  # an earlier probe is still there: the right was checked before
                    raise

        self._call("s3:PutObject", key, send)
        try:
            self._client.delete_object(Bucket=self._bucket, Key=key)
        except BOTO_ERRORS:
            return  # the object was written, which is all there was to prove

    def _put_once(self, key: str, body: BinaryIO, size_bytes: int) -> None:
        """Put, unless the key is taken by what an earlier try of ours left there."""
        try:
            self._put_object(key, body)
        except ClientError as error:
            if status_of(error) != _TAKEN:
                raise
            self._confirm_stored(key, size_bytes)

    def _put_object(self, key: str, body: BinaryIO | bytes) -> None:
        settings = self._settings
        options: dict[str, Any] = {
            "ServerSideEncryption": settings.sse,
            "SSEKMSKeyId": settings.kms_key,
            "StorageClass": settings.storage_class,
            # only AWS is known to honour it; some compatible stores refuse the header, some proxies drop it
            "IfNoneMatch": "*" if is_aws(self._client.meta.endpoint_url) else None,
        }
        self._client.put_object(
            Bucket=self._bucket,
            Key=key,
            Body=body,
            ContentType=_CONTENT_TYPES.get(PurePosixPath(key).suffix, "application/octet-stream"),
            **{name: value for name, value in options.items() if value is not None},
        )

    def _confirm_stored(self, key: str, size_bytes: int) -> None:
        """The key is taken. Keys are unique, so it must be our own earlier try: S3 keeps a PUT whole or not at all."""
        try:
            held_bytes = self._client.head_object(Bucket=self._bucket, Key=key)["ContentLength"]
        except ClientError as error:
            if status_of(error) != 403:
                raise
            return  # a role that may only write can't look, and the key is proof enough
        if held_bytes != size_bytes:
            raise ObjectRefusedError(
                f"s3://{self._bucket}/{key} holds something else ({held_bytes} bytes, not {size_bytes})",
                remedy="nothing is ever overwritten: move that object away",
            )

    def _page(self, prefix: str, resume: dict[str, Any]) -> ListObjectsV2OutputTypeDef:
        return self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, **resume)

    def _open(self, key: str, offset: int) -> GetObjectOutputTypeDef | None:
        """Begin to read; None if there is nothing from ``offset`` on."""
        span: dict[str, Any] = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            return self._client.get_object(Bucket=self._bucket, Key=key, **span)
        except ClientError as error:
            if status_of(error) == 416:
                return None
            if status_of(error) == 404 and error.response["Error"].get("Code") != "NoSuchBucket":
                raise NotFoundError(f"s3://{self._bucket}/{key} doesn't exist") from error
            raise

    def _call(self, action: str, key: str, send: Callable[[], _Answer]) -> _Answer:
        """Send, translate what fails, and send again what may pass: five tries within about 15 s."""

        def attempt() -> _Answer:
            try:
                return send()
            except BOTO_ERRORS as error:
                raise translate(error, self._request(action, key)) from error

        retrying = tenacity.Retrying(
            sleep=self._sleep,
            stop=tenacity.stop_after_attempt(_ATTEMPTS) | tenacity.stop_after_delay(_RETRY_FOR_S),
            wait=tenacity.wait_exponential_jitter(max=4.0, jitter=0.5),
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, StoreError) and error.transient),
            reraise=True,
        )
        return retrying(attempt)

    def _request(self, action: str, key: str) -> S3Request:
        meta = self._client.meta
        return S3Request(
            action=action,
            bucket=self._bucket,
            prefix=self._settings.prefix,
            key=key,
            endpoint=meta.endpoint_url,
            partition=meta.partition,
            kms_key=self._settings.kms_key,
        )

    @cached_property
    def _client(self) -> S3Client:
        common: dict[str, Any] = {
            "signature_version": "s3v4",
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "connect_timeout": 5,
            "read_timeout": 30,
            "user_agent_extra": f"oom-heap-dumper/{__version__}",
        }
        if self._settings.path_style:
            common["s3"] = {"addressing_style": "path"}
        try:
            session = boto3.session.Session()
            client = session.client("s3", config=Config(**common))
            if not is_aws(client.meta.endpoint_url):
                # the checksums that AWS takes by default travel as trailers that other stores may refuse
                common |= {
                    "request_checksum_calculation": "when_required",
                    "response_checksum_validation": "when_required",
                }
                client = session.client("s3", config=Config(**common))
        except (BotoCoreError, ValueError) as error:
            raise StoreError(
                f"can't set up S3 for {self.location}: {error}",
                remedy="mend the AWS_ variable it is about; AWS_ENDPOINT_URL_S3 is a URL such as https://host:9000",
            ) from error
        return client


def is_aws(endpoint_url: str) -> bool:
    """Whether an endpoint is Amazon's own, whose conditional writes and checksums can be relied on."""
    return (urlsplit(endpoint_url).hostname or "").endswith(_AWS_DOMAINS)


def _opened(source: Path) -> BinaryIO:
    try:
        return source.open("rb")
    except OSError as error:
        raise ObjectRefusedError(f"can't read {source}: {error.strerror}", remedy="check the spool's volume") from error
