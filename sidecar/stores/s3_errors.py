"""What botocore and S3 raise, told in one line with a remedy.

``translate`` looks a server's answer up by its error code (the ``Code`` of S3's error responses, as listed in the
Amazon S3 API reference) and everything else by botocore's class. Unknown codes and classes still become a StoreError.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from sidecar.core.printable import printable
from sidecar.errors import StoreError
from sidecar.stores.errors import ObjectRefusedError

# What a call of boto3 may raise. OSError comes from the files that hold credentials: botocore lets it through.
BOTO_ERRORS = (BotoCoreError, ClientError, ResponseParserError, HTTPError, OSError)

_S3_OPERATIONS = frozenset({"PutObject", "GetObject", "HeadObject", "DeleteObject", "ListObjectsV2"})


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Request:
    """What was asked of S3: the IAM action, what it needs that action on, and where the request went."""

    action: str
    bucket: str
    prefix: str
    key: str
    endpoint: str
    partition: str = "aws"
    kms_key: str | None = None

    @property
    def resource(self) -> str:
        """The ARN that a policy must name to allow this request."""
        is_arn = self.bucket.startswith("arn:")  # an access point
        arn = self.bucket if is_arn else f"arn:{self.partition}:s3:::{self.bucket}"
        if self.action == "s3:ListBucket":
            return arn
        return "/".join(filter(None, (arn, "object" if is_arn else "", self.prefix, "*")))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """A remedy, a format string over the request's fields, and how far the fault reaches or may reach."""

    remedy: str
    transient: bool = False
    object_only: bool = False
    may_be_object: bool = False


_CREDENTIALS = (
    "give the pod a role (IRSA, EKS Pod Identity) or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY from a secret"
)
_SETTINGS = "mend the AWS_ variable or the AWS configuration file that it names"
_NETWORK = "check {endpoint} (AWS_ENDPOINT_URL_S3), DNS, network policies and proxies"

_ALLOW = _Rule(remedy="allow {action} on {resource}", may_be_object=True)
_ACCOUNT = _Rule(remedy="the store has disabled the account or bucket: ask whoever owns it")
_KEY_ID = _Rule(remedy="{endpoint} doesn't know this AWS_ACCESS_KEY_ID: give the key of this very store")
_EXPIRED = _Rule(remedy="the session's credentials are no longer valid: renew AWS_SESSION_TOKEN and its keys")
_REGION = _Rule(remedy="set AWS_REGION={region} for bucket {bucket}")
_CLOCK = _Rule(remedy="set this machine's clock (NTP): it is more than 15 minutes off the store's")
_UNREACHABLE = _Rule(remedy=_NETWORK, transient=True)
# A proxy may cut off, or a firewall refuse, a single large body.
_CUT_OFF = _Rule(remedy=_NETWORK, transient=True, may_be_object=True)
_BUSY = _Rule(remedy="the store is overloaded or failing, or {endpoint} is no S3 endpoint", transient=True)
_FAILING = replace(_BUSY, may_be_object=True)
_DAMAGED = _Rule(
    remedy="the object was damaged on its way: check proxies between here and {endpoint}",
    transient=True,
    may_be_object=True,
)
_KMS = _Rule(remedy="check that S3_KMS_KEY_ID names an enabled key in the bucket's region that this role may use")
_BUCKET = _Rule(remedy="{bucket!r} is no bucket name: 3 to 63 of a-z, 0-9, dot and hyphen, without s3:// or a path")
_TOO_LARGE = _Rule(remedy="the store takes no object of this size", object_only=True)
_UNSUPPORTED = _Rule(remedy="{endpoint} doesn't support something asked for: unset S3_SSE, S3_STORAGE_CLASS")

_BY_CODE: dict[str, _Rule] = {
    "AccessDenied": _ALLOW,
    "Forbidden": _ALLOW,
    "403": _ALLOW,
    "AllAccessDisabled": _ACCOUNT,
    "AccountProblem": _ACCOUNT,
    "NotSignedUp": _ACCOUNT,
    "InvalidAccessKeyId": _KEY_ID,
    "SignatureDoesNotMatch": _Rule(
        remedy="AWS_SECRET_ACCESS_KEY doesn't belong to AWS_ACCESS_KEY_ID (or a proxy alters the requests)"
    ),
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": _CLOCK,
    "RequestExpired": _CLOCK,
    "NoSuchBucket": _Rule(remedy="create the bucket {bucket} at {endpoint}, or mend BUCKET"),
    "InvalidBucketName": _BUCKET,
    "301": _REGION,
    "307": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "PermanentRedirect": _REGION,
    "TemporaryRedirect": _REGION,
    "BandwidthLimitExceeded": _BUSY,
    "ConditionalRequestConflict": _BUSY,
    "InternalError": _FAILING,
    "OperationAborted": _BUSY,
    "RequestLimitExceeded": _BUSY,
    "RequestTimeout": _BUSY,
    "ServiceUnavailable": _BUSY,
    "SlowDown": _BUSY,
    "Throttling": _BUSY,
    "ThrottlingException": _BUSY,
    "TooManyRequests": _BUSY,
    "BadDigest": _DAMAGED,
    "IncompleteBody": _DAMAGED,
    "XAmzContentSHA256Mismatch": _DAMAGED,
    "EntityTooLarge": _TOO_LARGE,
    "KeyTooLongError": _Rule(remedy="shorten PREFIX: S3 takes keys of 1024 bytes at the most", object_only=True),
    "InvalidStorageClass": _Rule(remedy="mend S3_STORAGE_CLASS: the store knows no such class"),
    "MissingContentLength": _UNSUPPORTED,
    "NotImplemented": _UNSUPPORTED,
}

_BY_CLASS: tuple[tuple[type[BotoCoreError], _Rule], ...] = (
    (boto.NoCredentialsError, _Rule(remedy=_CREDENTIALS)),
    (boto.PartialCredentialsError, _Rule(remedy=_CREDENTIALS)),
    (boto.CredentialRetrievalError, _Rule(remedy=_CREDENTIALS, transient=True)),
    (boto.MetadataRetrievalError, _Rule(remedy=_CREDENTIALS, transient=True)),
    (boto.NoAuthTokenError, _Rule(remedy=_CREDENTIALS)),
    (boto.UnknownCredentialError, _Rule(remedy=_CREDENTIALS)),
    (boto.TokenRetrievalError, _Rule(remedy="log in again: aws sso login")),
    (boto.SSOError, _Rule(remedy="log in again: aws sso login")),
    (boto.LoginError, _Rule(remedy="log in again: aws login")),
    (boto.ProfileNotFound, _Rule(remedy="mend AWS_PROFILE")),
    (boto.ConfigNotFound, _Rule(remedy=_SETTINGS)),
    (boto.ConfigParseError, _Rule(remedy=_SETTINGS)),
    (boto.InvalidConfigError, _Rule(remedy=_SETTINGS)),
    (boto.NoRegionError, _Rule(remedy="set AWS_REGION")),
    (boto.InvalidRegionError, _Rule(remedy="mend AWS_REGION")),
    (boto.UnknownRegionError, _Rule(remedy="mend AWS_REGION")),
    (boto.ParamValidationError, _Rule(remedy="check BUCKET and PREFIX")),
    (boto.InvalidDNSNameError, _BUCKET),
    (boto.UnsupportedS3ArnError, _BUCKET),
    (boto.UnsupportedS3AccesspointConfigurationError, _Rule(remedy="set AWS_REGION to the access point's region")),
    (boto.EndpointProviderError, _Rule(remedy="check AWS_ENDPOINT_URL_S3, AWS_REGION and BUCKET")),
    (boto.BaseEndpointResolverError, _Rule(remedy="check AWS_ENDPOINT_URL_S3 and AWS_REGION")),
    (boto.MissingDependencyException, _Rule(remedy="install what it names beside oom-heap-dumper")),
    (boto.ProxyConnectionError, _Rule(remedy="check HTTPS_PROXY, or name {endpoint} in NO_PROXY", transient=True)),
    (boto.EndpointConnectionError, _UNREACHABLE),
    (boto.ConnectTimeoutError, _UNREACHABLE),
    (boto.ConnectionClosedError, _CUT_OFF),
    (boto.ReadTimeoutError, _CUT_OFF),
    (boto.ConnectionError, _UNREACHABLE),
    (boto.HTTPClientError, _UNREACHABLE),
    (boto.IncompleteReadError, _DAMAGED),
    (boto.ChecksumError, _DAMAGED),
    (boto.FlexibleChecksumError, _DAMAGED),
)

_TLS = _Rule(remedy="AWS_CA_BUNDLE must name a PEM file with the authority that signed the certificate of {endpoint}")
_NO_FILE = _Rule(remedy="check the files that the AWS_ variables name, such as AWS_WEB_IDENTITY_TOKEN_FILE")
_NOT_S3 = _Rule(remedy="check that {endpoint} is an S3 endpoint and not another web server")
_IDENTITY = _Rule(remedy="check the role's trust policy and the service account's annotation with the role's ARN")
_UNKNOWN = _Rule(remedy="see the store's documentation of this error")


def translate(error: Exception, request: S3Request) -> StoreError:
    """Turn what botocore raised for ``request`` into a StoreError, or its kind for this one object."""
    where = f"s3://{request.bucket}/{request.key}"
    if isinstance(error, ClientError):
        details: dict[str, Any] = dict(error.response.get("Error", {}))
        code = str(details.get("Code") or "no code")
        problem = f"{code}: {details.get('Message') or 'no message'}"
        if error.operation_name not in _S3_OPERATIONS:
            where, rule = f"credentials for s3://{request.bucket}, {error.operation_name}", _identity_rule(error, code)
        else:
            rule = _client_error_rule(error, code)
        region = _right_region(error)
    else:
        problem, rule, region = str(error), _class_rule(error), ""
    remedy = rule.remedy.format(
        action=request.action,
        resource=request.resource,
        bucket=request.bucket,
        endpoint=request.endpoint,
        region=region or "the bucket's region",
    )
    if rule is _ALLOW and (request.kms_key or "kms" in problem.lower()):
        remedy += f", and kms:GenerateDataKey and kms:Decrypt on {request.kms_key or 'the key of the bucket'}"
    if rule is _ALLOW and request.action == "s3:ListBucket" and not request.prefix:
        remedy += ", or set PREFIX, or --prefix, where only the dumps' own prefix may be listed"
    kind = ObjectRefusedError if rule.object_only else StoreError
    message = printable(" ".join(f"{where}: {problem}".split()))
    return kind(message, remedy=printable(remedy), transient=rule.transient, may_be_object=rule.may_be_object)


def status_of(error: ClientError) -> int:
    """The HTTP status of the answer; 0 where there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _client_error_rule(error: ClientError, code: str) -> _Rule:
    if code in _BY_CODE:
        return _BY_CODE[code]
    status = status_of(error)
    if status in (408, 429, 503):
        return _BUSY
    if status >= 500:
        return _FAILING
    if code.startswith("KMS."):
        return _KMS
    if status == 403:
        return _ALLOW
    if status in (301, 302, 307, 308):
        return _REGION
    # what the store refuses for a reason unknown to us may be this object's alone: the others shall have their chance
    return _Rule(remedy=_UNKNOWN.remedy, object_only=400 <= status < 500)


def _identity_rule(error: ClientError, code: str) -> _Rule:
    rule = _client_error_rule(error, code)
    return rule if rule in (_BUSY, _FAILING, _CLOCK) else _IDENTITY


def _right_region(error: ClientError) -> str:
    """The bucket's region, which S3 tells in a header or in the error itself."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    details: dict[str, Any] = dict(error.response.get("Error", {}))
    return str(headers.get("x-amz-bucket-region") or details.get("Region") or "")


def _class_rule(error: Exception) -> _Rule:
    if isinstance(error, boto.SSLError):
        # a connection cut in the handshake says EOF; all else is a matter of certificates or of a wrong scheme
        return _Rule(remedy=_TLS.remedy, transient="EOF" in str(error))
    if isinstance(error, ResponseParserError):
        return _NOT_S3
    if isinstance(error, HTTPError):
        return _UNREACHABLE
    for kind, rule in _BY_CLASS:
        if isinstance(error, kind):
            return rule
    return _NO_FILE if isinstance(error, OSError) else _Rule(remedy=_SETTINGS)
