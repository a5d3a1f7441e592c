"""What is special about S3: credentials, retries, what goes over the wire."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from sidecar.errors import NotFoundError, StoreError
from sidecar.stores.errors import ObjectRefusedError
from sidecar.stores.s3 import S3Store, is_aws
from tests.s3_servers import S3Endpoint
from tests.s3_servers.scripted import Answer, Received, Script, error, in_turn, reset, scripted_server
from tests.s3_servers.swift import SwiftServer
from tests.stores.conftest import MakeSettings

CONTENT = b"profile" * 100
PAGE = """<?xml version='1.0'?><ListBucketResult><IsTruncated>{truncated}</IsTruncated>{token}
<Contents><Key>{key}</Key><Size>1</Size><LastModified>2026-11-20T22:50:12.000Z</LastModified></Contents>
</ListBucketResult>"""

MakeStore = Callable[..., S3Store]


@dataclass
class Naps:
    """Stands in for sleeping, and remembers how long it would have been."""

    seconds: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def naps() -> Naps:
    """The pauses between tries."""
    return Naps()


@pytest.fixture
def make_store(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, naps: Naps) -> MakeStore:
    """A store at an endpoint, which doesn't really pause between tries."""

    def make(endpoint: S3Endpoint, **changes: object) -> S3Store:
        endpoint.point_here(monkeypatch)
        return S3Store(make_settings(**{"bucket": endpoint.bucket, **changes}), sleep=naps)

    return make


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file to store."""
    path = tmp_path / "heap-8080.pb.gz"
    path.write_bytes(CONTENT)
    return path


def _refusal(store: S3Store, source: Path) -> StoreError:
    with pytest.raises(StoreError) as caught:
        store.put("team/x/heap.pb.gz", source)
    return caught.value


@pytest.mark.parametrize("door", ["http", "https"])
def test_a_wrong_secret_is_refused_and_named(
    swift: SwiftServer, make_store: MakeStore, source: Path, door: str
) -> None:
    """A store that verifies signatures refuses a wrong secret; the remedy names the variable, nobody tries again."""
    endpoint = replace(getattr(swift, door), secret_key="wrong")
    refusal = _refusal(make_store(endpoint), source)
    assert "SignatureDoesNotMatch" in str(refusal)
    assert "AWS_SECRET_ACCESS_KEY" in refusal.remedy
    assert not refusal.transient


def test_an_unknown_access_key_is_named(swift: SwiftServer, make_store: MakeStore, source: Path) -> None:
    """A key of another store is told apart from a wrong secret."""
    refusal = _refusal(make_store(replace(swift.http, access_key="test:nobody")), source)
    assert "AWS_ACCESS_KEY_ID" in refusal.remedy


def test_missing_rights_are_spelled_out(swift: SwiftServer, make_store: MakeStore, source: Path) -> None:
    """A known user without rights is told which action on which resource is missing."""
    powerless = replace(swift.http, access_key=swift.powerless_access_key, secret_key=swift.powerless_secret_key)
    refusal = _refusal(make_store(powerless, prefix="team/x"), source)
    assert "AccessDenied" in str(refusal)
    assert "s3:PutObject on arn:aws:s3:::dumps/team/x/*" in refusal.remedy
    with pytest.raises(StoreError) as caught:
        list(make_store(powerless).list(""))
    assert "s3:ListBucket on arn:aws:s3:::dumps" in caught.value.remedy


def test_a_missing_bucket_is_named(swift: SwiftServer, make_store: MakeStore, source: Path) -> None:
    """The remedy names the bucket and where it was looked for."""
    refusal = _refusal(make_store(swift.http, bucket="absent"), source)
    assert "absent" in refusal.remedy
    assert swift.http.url in refusal.remedy


@pytest.mark.parametrize("bucket", ["Not A Bucket", "a/b", "s3://dumps"])
def test_an_impossible_bucket_name_is_refused_before_any_request(
    make_store: MakeStore, source: Path, bucket: str
) -> None:
    """Names that can't be are a StoreError too, and cause no traffic."""
    with scripted_server(in_turn(Answer())) as server:
        refusal = _refusal(make_store(server.endpoint, bucket=bucket), source)
        assert server.requests == []
    assert "BUCKET" in refusal.remedy


def test_an_unknown_authority_is_named(swift: SwiftServer, make_store: MakeStore, source: Path, naps: Naps) -> None:
    """A certificate that can't be verified is refused; the remedy names the variable."""
    refusal = _refusal(make_store(replace(swift.https, ca_file=None)), source)
    assert "AWS_CA_BUNDLE" in refusal.remedy
    assert naps.seconds == []


def test_an_unreadable_ca_file_is_named(swift: SwiftServer, make_store: MakeStore, source: Path) -> None:
    """A path that is wrong is not mistaken for a broken network."""
    refusal = _refusal(make_store(replace(swift.https, ca_file=Path("/nonexistent.pem"))), source)
    assert "AWS_CA_BUNDLE must name" in refusal.remedy


def test_no_credentials_are_told(monkeypatch: pytest.MonkeyPatch, make_store: MakeStore, source: Path) -> None:
    """Without any credentials the remedy tells where they may come from."""
    with scripted_server(in_turn(Answer())) as server:
        store = make_store(server.endpoint)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        assert "AWS_ACCESS_KEY_ID" in _refusal(store, source).remedy


def test_a_missing_token_file_of_a_role_is_told(
    monkeypatch: pytest.MonkeyPatch, make_store: MakeStore, source: Path
) -> None:
    """Botocore lets the OSError of a missing token file through; it must not escape, nor be blamed on the spool."""
    with scripted_server(in_turn(Answer())) as server:
        store = make_store(server.endpoint)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/dumper")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent/token")
        refusal = _refusal(store, source)
    assert "/nonexistent/token" in str(refusal)
    assert "AWS_WEB_IDENTITY_TOKEN_FILE" in refusal.remedy


@pytest.mark.parametrize("url", ["minio:9000", "http://[", "nonsense"])
def test_an_endpoint_that_is_no_url_is_told(make_store: MakeStore, source: Path, url: str) -> None:
    """boto3 raises ValueError for these; it becomes a StoreError with an example."""
    endpoint = S3Endpoint(url=url, access_key="any", secret_key="any", bucket="dumps")
    assert "https://host:9000" in _refusal(make_store(endpoint), source).remedy


def test_overload_is_waited_out(make_store: MakeStore, source: Path, naps: Naps) -> None:
    """SlowDown and a reset connection are tried again with growing pauses, the whole body each time."""
    script = in_turn(error(503, "SlowDown"), reset(), error(500, "InternalError"), Answer())
    with scripted_server(script) as server:
        make_store(server.endpoint).put("a/b", source)
        assert [request.body for request in server.requests] == [CONTENT] * 4
        assert server.objects == {"a/b": CONTENT}
    assert naps.seconds == sorted(naps.seconds)
    assert len(naps.seconds) == 3


def test_patience_ends(make_store: MakeStore, source: Path, naps: Naps) -> None:
    """After five tries within about 15 s the error is reported as one that may pass."""
    with scripted_server(in_turn(error(503, "SlowDown"))) as server:
        refusal = _refusal(make_store(server.endpoint), source)
        assert len(server.requests) == 5
    assert refusal.transient
    assert 8 < sum(naps.seconds) < 15


@pytest.mark.parametrize("code", ["AccessDenied", "RequestTimeTooSkewed", "ExpiredToken"])
def test_what_stays_wrong_is_not_tried_again(make_store: MakeStore, source: Path, code: str) -> None:
    """Only what may pass is tried again."""
    with scripted_server(in_turn(error(403, code))) as server:
        refusal = _refusal(make_store(server.endpoint), source)
        assert len(server.requests) == 1
    assert refusal.remedy
    assert not isinstance(refusal, ObjectRefusedError)


def test_the_right_region_is_told(make_store: MakeStore, source: Path) -> None:
    """A bucket elsewhere is answered with its region in a header; the remedy passes it on."""
    redirect = error(301, "PermanentRedirect", x_amz_bucket_region="eu-west-1")
    with scripted_server(in_turn(redirect)) as server:
        assert "AWS_REGION=eu-west-1" in _refusal(make_store(server.endpoint), source).remedy


def test_a_dead_endpoint_is_transient_and_named(make_store: MakeStore, source: Path) -> None:
    """Nobody listening may pass; the remedy names the address that was tried."""
    with scripted_server(in_turn(Answer())) as server:
        endpoint = server.endpoint
    refusal = _refusal(make_store(endpoint), source)
    assert refusal.transient
    assert endpoint.url in refusal.remedy


def _ranged(content: bytes, *, honours_range: bool) -> Script:
    """Breaks off after 200 kB, then sends what it is asked for."""

    def script(request: Received) -> Answer:
        begin = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        partial = begin > 0 and honours_range
        body = content[begin:] if partial else content
        return Answer(status=206 if partial else 200, body=body, cut_after=200_000 if request.number == 1 else None)

    return script


@pytest.mark.parametrize("honours_range", [True, False])
def test_a_broken_download_goes_on_where_it_broke_off(make_store: MakeStore, *, honours_range: bool) -> None:
    """Bytes that came before the break are neither lost nor doubled, even where the store ignores Range."""
    content = os.urandom(300_000)
    with scripted_server(_ranged(content, honours_range=honours_range)) as server:
        assert b"".join(make_store(server.endpoint).read("a/b")) == content
        first, second = server.requests
    assert "range" not in first.headers
    assert 100_000 < int(second.headers["range"].removeprefix("bytes=").rstrip("-")) <= 200_000


def test_a_download_that_makes_no_progress_fails(make_store: MakeStore) -> None:
    """A store that always breaks off before the first byte isn't asked for ever."""
    nothing = Answer(headers={"Content-Length": "700"}, cut_after=1)
    with scripted_server(in_turn(nothing)) as server:
        with pytest.raises(StoreError) as caught:
            list(make_store(server.endpoint).read("a/b"))
        assert len(server.requests) == 5
    assert caught.value.transient


def test_a_listing_follows_every_page(make_store: MakeStore) -> None:
    """The continuation token is passed on until the last page."""

    def script(request: Received) -> Answer:
        first = "continuation-token" not in request.query
        token = "<NextContinuationToken>t</NextContinuationToken>" if first else ""
        page = PAGE.format(truncated=str(first).lower(), token=token, key="a/1" if first else "a/2")
        return Answer(body=page.encode())

    with scripted_server(script) as server:
        assert [item.key for item in make_store(server.endpoint).list("a/")] == ["a/1", "a/2"]


def test_an_answer_that_is_no_s3_is_told(make_store: MakeStore) -> None:
    """A web page where an S3 endpoint should be is no crash."""
    with (
        scripted_server(in_turn(Answer(body=b"<html>Welcome<br></html>"))) as server,
        pytest.raises(StoreError) as caught,
    ):
        list(make_store(server.endpoint).list(""))
    assert "no S3 endpoint" in caught.value.remedy


def test_a_probe_needs_no_right_to_delete(make_store: MakeStore) -> None:
    """A role that may only write passes the probe."""
    with scripted_server(
        lambda request: error(403, "AccessDenied") if request.method == "DELETE" else Answer()
    ) as server:
        make_store(server.endpoint).probe("prod/api-0/.write-probe")
        assert [request.method for request in server.requests] == ["PUT", "DELETE"]


def test_encryption_class_and_type_are_asked_for(moto: S3Endpoint, make_store: MakeStore, source: Path) -> None:
    """What the settings ask for is what the object has."""
    key = f"options-{os.urandom(4).hex()}/manifest.json"
    make_store(moto, sse="aws:kms", kms_key="alias/dumps", storage_class="STANDARD_IA").put(key, source)
    held = boto3.client("s3").head_object(Bucket=moto.bucket, Key=key)
    assert held["ServerSideEncryption"] == "aws:kms"
    assert held["SSEKMSKeyId"].endswith("alias/dumps")
    assert held["StorageClass"] == "STANDARD_IA"
    assert held["ContentType"] == "application/json"


def _remembered(store: S3Store, event: str) -> list[Any]:
    """The requests that the store sends, at a stage of botocore's."""
    requests: list[Any] = []

    def remember(request: Any, **_: object) -> None:  # noqa: ANN401 -- botocore's request
        requests.append(request)

    store._client.meta.events.register(event, remember)
    return requests


@pytest.fixture
def make_aws_store(monkeypatch: pytest.MonkeyPatch, make_settings: MakeSettings) -> Iterator[Callable[..., S3Store]]:
    """A store at Amazon's own endpoint, answered inside this process."""
    S3Endpoint(url="", access_key="any", secret_key="any", bucket="").point_here(monkeypatch)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    amazon = mock_aws()
    amazon.start(reset=False)  # moto's server in this process has the same memory
    try:
        boto3.client("s3").create_bucket(Bucket="on-aws")
        yield lambda **changes: S3Store(make_settings(bucket="on-aws", **changes))
    finally:
        amazon.stop(remove_data=False)


@pytest.mark.parametrize(
    ("path_style", "url"), [(True, "s3.amazonaws.com/on-aws/a/b"), (False, "on-aws.s3.amazonaws.com/a/b")]
)
def test_path_style_moves_the_bucket_into_the_path(
    make_aws_store: Callable[..., S3Store], source: Path, url: str, *, path_style: bool
) -> None:
    """On AWS the bucket is a subdomain unless path style is asked for."""
    store = make_aws_store(path_style=path_style)
    requests = _remembered(store, "before-send.s3")
    store.put("a/b", source)
    assert requests[0].url == f"https://{url}"


def test_on_aws_a_write_is_conditional_and_checksummed(make_aws_store: Callable[..., S3Store], source: Path) -> None:
    """Amazon's own guards are used where they are sure to exist: If-None-Match and a checksum."""
    store = make_aws_store()
    requests = _remembered(store, "before-send.s3")
    store.put("a/c", source)
    names = {name.lower() for name in requests[0].headers}
    assert "if-none-match" in names
    assert any(name.startswith(("x-amz-checksum-", "x-amz-trailer")) for name in names)


def test_on_aws_nothing_is_overwritten(make_aws_store: Callable[..., S3Store], source: Path, tmp_path: Path) -> None:
    """A key taken by our own earlier try is success, by something else a refusal, and either way it stays."""
    store = make_aws_store()
    store.put("a/d", source)
    store.put("a/d", source)
    (tmp_path / "other").write_bytes(b"other")
    with pytest.raises(ObjectRefusedError, match="holds something else"):
        store.put("a/d", tmp_path / "other")
    assert b"".join(store.read("a/d")) == CONTENT


def test_elsewhere_no_header_is_sent_that_a_store_might_refuse(make_store: MakeStore, source: Path) -> None:
    """Compatible stores get a plain PUT: no condition, no trailer, no checksum."""
    with scripted_server(in_turn(Answer())) as server:
        make_store(server.endpoint).put("a/b", source)
        [request] = server.requests
    assert "if-none-match" not in request.headers
    assert not any("checksum" in name or "trailer" in name for name in request.headers)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://s3.eu-west-1.amazonaws.com", True),
        ("https://bucket.vpce-1a2b-3c4d.s3.us-east-1.vpce.amazonaws.com", True),
        ("https://s3.cn-north-1.amazonaws.com.cn", True),
        ("https://amazonaws.com.example.org", False),
        ("http://127.0.0.1:9000", False),
        ("https://evilamazonaws.com", False),
    ],
)
def test_only_amazons_own_hosts_count_as_aws(url: str, *, expected: bool) -> None:
    """The host decides, and only as a whole domain."""
    assert is_aws(url) is expected


def test_a_missing_object_is_not_a_missing_bucket(moto: S3Endpoint, make_store: MakeStore) -> None:
    """Both answer 404; only the object's absence is NotFoundError."""
    with pytest.raises(NotFoundError):
        list(make_store(moto).read("absent"))
    with pytest.raises(StoreError, match="NoSuchBucket"):
        list(make_store(moto, bucket="absent").read("absent"))
