"""Every error that boto3 can raise becomes one line and a remedy."""

from __future__ import annotations

import string
from dataclasses import replace
from typing import Any

import pytest
from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import StoreError
from sidecar.stores.errors import ObjectRefusedError
from sidecar.stores.s3_errors import _BY_CLASS, _BY_CODE, S3Request, translate

REQUEST = S3Request(
    action="s3:PutObject", bucket="dumps", prefix="team/x", key="team/x/k", endpoint="https://s3.example.test"
)
MAY_PASS = {
    *("ChecksumError", "FlexibleChecksumError", "IncompleteReadError"),
    *("ConnectionClosedError", "ConnectionError", "ConnectTimeoutError", "EndpointConnectionError", "HTTPClientError"),
    *("CredentialRetrievalError", "MetadataRetrievalError"),
    *("ProxyConnectionError", "ReadTimeoutError", "ResponseStreamingError"),
}


def _classes() -> list[type[Exception]]:
    found = [each for each in vars(boto).values() if isinstance(each, type) and issubclass(each, BotoCoreError)]
    return sorted({*found, BotoCoreError}, key=lambda each: each.__name__)


def _instance(kind: type[Any]) -> Exception:
    """An exception with something in each field of its message."""
    names = {name.partition(".")[0].partition("[")[0] for _, name, _, _ in string.Formatter().parse(kind.fmt) if name}
    fields: dict[str, Any] = dict.fromkeys(names, "x")
    if issubclass(kind, boto.WaiterError):
        fields["last_response"] = {}
    made: Exception = kind(**fields)
    return made


def _client_error(code: str, status: int = 400, message: str = "because", **extra: str) -> ClientError:
    headers = {"x-amz-bucket-region": "eu-west-1"} if status == 301 else {}
    response: Any = {
        "Error": {"Code": code, "Message": message, **extra},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    return ClientError(response, "PutObject")


@pytest.mark.parametrize("kind", _classes(), ids=lambda kind: kind.__name__)
def test_every_class_of_botocore_is_translated(kind: type[Exception]) -> None:
    """No class is left without a remedy, and only those that may pass are tried again."""
    told = translate(_instance(kind), REQUEST)
    assert type(told) is StoreError
    assert told.remedy
    assert "{" not in told.remedy
    assert told.transient == (kind.__name__ in MAY_PASS)


@pytest.mark.parametrize(("index", "kind"), list(enumerate(kind for kind, _ in _BY_CLASS)))
def test_no_class_hides_behind_an_earlier_one(index: int, kind: type[Exception]) -> None:
    """The table is read from the top: a base class above its child would make the child's rule dead."""
    assert not any(issubclass(kind, earlier) for earlier, _ in _BY_CLASS[:index])


@pytest.mark.parametrize("code", sorted(_BY_CODE))
def test_every_known_code_has_a_remedy(code: str) -> None:
    """Each known code is told with its name, what the store said, and what to do."""
    told = translate(_client_error(code), REQUEST)
    assert str(told) == f"s3://dumps/team/x/k: {code}: because"
    assert told.remedy
    assert "{" not in told.remedy


@pytest.mark.parametrize(("prefix", "hints"), [("", True), ("team", False)])
def test_a_forgotten_prefix_may_be_why_a_listing_is_refused(prefix: str, *, hints: bool) -> None:
    """The least policy for readers allows the listing of one prefix alone."""
    request = replace(REQUEST, action="s3:ListBucket", prefix=prefix)
    assert ("--prefix" in translate(_client_error("AccessDenied", 403), request).remedy) == hints


@pytest.mark.parametrize(
    ("error", "remedy", "transient", "object_only"),
    [
        (_client_error("AccessDenied", 403), "s3:PutObject on arn:aws:s3:::dumps/team/x/*", False, False),
        (_client_error("AccessDenied", 403, "kms:GenerateDataKey denied"), "kms:GenerateDataKey", False, False),
        (_client_error("403", 403), "s3:PutObject", False, False),
        (_client_error("InvalidAccessKeyId", 403), "AWS_ACCESS_KEY_ID", False, False),
        (_client_error("SignatureDoesNotMatch", 403), "AWS_SECRET_ACCESS_KEY", False, False),
        (_client_error("ExpiredToken", 400), "AWS_SESSION_TOKEN", False, False),
        (_client_error("RequestTimeTooSkewed", 403), "clock", False, False),
        (_client_error("NoSuchBucket", 404), "create the bucket dumps", False, False),
        (_client_error("PermanentRedirect", 301), "AWS_REGION=eu-west-1", False, False),
        (_client_error("AuthorizationHeaderMalformed", Region="us-west-2"), "AWS_REGION=us-west-2", False, False),
        (_client_error("SlowDown", 503), "overloaded", True, False),
        (_client_error("Unheard", 502), "overloaded", True, False),
        (_client_error("Unheard", 429), "overloaded", True, False),
        (_client_error("Unheard", 403), "s3:PutObject", False, False),
        (_client_error("Unheard", 418), "documentation", False, True),
        (_client_error("KMS.DisabledException", 400), "S3_KMS_KEY_ID", False, False),
        (_client_error("InvalidStorageClass", 400), "S3_STORAGE_CLASS", False, False),
        (_client_error("EntityTooLarge", 400), "this size", False, True),
        (_client_error("NotImplemented", 501), "S3_SSE", False, False),
    ],
)
def test_answers_of_the_store_have_the_remedy_that_helps(
    error: ClientError, remedy: str, *, transient: bool, object_only: bool
) -> None:
    """The remedy names what to change, a passing fault is marked so, and one object's fault isn't the store's."""
    told = translate(error, REQUEST)
    assert remedy in told.remedy
    assert told.transient is transient
    assert isinstance(told, ObjectRefusedError) is object_only


def test_a_role_that_can_not_be_assumed_is_no_missing_right_on_the_bucket() -> None:
    """Credentials are fetched in the middle of a PUT; their failure must not be blamed on the bucket."""
    error = ClientError(
        {"Error": {"Code": "AccessDenied", "Message": "Not authorized"}, "ResponseMetadata": {"HTTPStatusCode": 403}},  # type: ignore[typeddict-item]  # only what is read
        "AssumeRoleWithWebIdentity",
    )
    told = translate(error, REQUEST)
    assert "AssumeRoleWithWebIdentity" in str(told)
    assert "trust policy" in told.remedy
    assert "s3:PutObject" not in told.remedy


def test_an_access_point_is_named_by_its_own_arn() -> None:
    """Policies of access points name their objects in another way."""
    request = S3Request(
        action="s3:PutObject",
        bucket="arn:aws:s3:eu-west-1:123456789012:accesspoint/dumps",
        prefix="",
        key="k",
        endpoint="https://s3.example.test",
    )
    assert request.resource == "arn:aws:s3:eu-west-1:123456789012:accesspoint/dumps/object/*"


@given(st.text(), st.text())
def test_whatever_a_store_says_is_one_harmless_line(code: str, message: str) -> None:
    """An answer can neither break the line nor send escape codes to a terminal."""
    told = translate(_client_error(code, 500, message), REQUEST)
    assert (str(told) + told.remedy).isprintable()
