"""What kind of failure one of botocore's errors is, and whether it passes by itself."""

from __future__ import annotations

import aiohttp
from botocore import exceptions
from botocore.parsers import ResponseParserError

_PASSING_CODES = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentSHA256Mismatch",
    }
)
_PASSING_ERRORS = (
    exceptions.ConnectionError,
    exceptions.HTTPClientError,
    exceptions.IncompleteReadError,
    exceptions.FlexibleChecksumError,
    exceptions.CredentialRetrievalError,
    exceptions.MetadataRetrievalError,
    # Gateways before S3 answer in HTML.
    ResponseParserError,
    aiohttp.ClientError,
    ConnectionError,
    TimeoutError,
)


def code_of(error: Exception) -> str:
    """S3's own code of an error; empty where S3 did not answer. HEAD knows numbers only."""
    return str(error.response["Error"].get("Code", "")) if isinstance(error, exceptions.ClientError) else ""


def status_of(error: Exception) -> int:
    """The HTTP status of S3's answer; 0 where it did not answer."""
    if not isinstance(error, exceptions.ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_missing(error: Exception) -> bool:
    """Whether there is no such key."""
    if not isinstance(error, exceptions.ClientError):
        return False
    # Only HEAD has no room for a code; a 404 without one to another question comes from no S3.
    return code_of(error) == "NoSuchKey" or (status_of(error) == 404 and error.operation_name == "HeadObject")


def passes(error: Exception) -> bool:
    """Whether an error may be gone if the same is asked again."""
    if isinstance(error, exceptions.ClientError):
        status = status_of(error)
        return (status >= 500 and status != 501) or status == 429 or code_of(error) in _PASSING_CODES
    return isinstance(error, _PASSING_ERRORS)
