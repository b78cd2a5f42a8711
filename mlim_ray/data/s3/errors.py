"""What botocore's errors say to a person: the path, the cause and the mend, in one line and without a secret."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions

from mlim_ray.data.s3.client import endpoint
from mlim_ray.data.s3.failures import code_of, is_missing, passes, status_of
from mlim_ray.data.s3.retries import GaveUp
from mlim_ray.data.storage_error import MissingPathError, StorageError

_MENDS = {
    "InvalidAccessKeyId": ("the access key is not known there", "check AWS_ACCESS_KEY_ID, or the profile"),
    "SignatureDoesNotMatch": (
        "the secret does not fit the access key, or there is no such key",
        "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile",
    ),
    "ExpiredToken": ("the credentials have expired", "renew them"),
    "InvalidToken": ("the session token is not valid", "renew it, or unset AWS_SESSION_TOKEN"),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "set it"),
    "PermanentRedirect": ("the bucket lies in another region", "set AWS_REGION to it"),
    "AuthorizationHeaderMalformed": ("the bucket lies in another region", "set AWS_REGION to it"),
    "PreconditionFailed": ("it was changed while it was read", "start again once nothing writes to it"),
    "KMS.NotFoundException": ("there is no such KMS key", "check MLIM_RAY_S3_SSE_KMS_KEY_ID"),
}
_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.ProfileNotFound,
)
_USER = re.compile(r"//[^/@\s]*@")
_KEY_ID = re.compile(r"\b[A-Z0-9]{16,128}\b")


@contextmanager
def explained(action: str, path: str) -> Iterator[None]:
    """Turn what botocore raises into a StorageError that names `path`, the cause and the mend, and no secret."""
    try:
        yield
    except GaveUp as gave_up:
        cause, mend = _explain(gave_up.error, path)
        tried = f"asked again for {gave_up.budget_s:.0f} s" if gave_up.budget_s else "asked once"
        raise StorageError(f"cannot {action} {path}: {cause} ({tried}); {mend}") from gave_up.error
    except (exceptions.ClientError, exceptions.BotoCoreError) as error:
        cause, mend = _explain(error, path)
        kind = MissingPathError if is_missing(error) else StorageError
        raise kind(f"cannot {action} {path}: {cause}; {mend}") from error


def _explain(error: Exception, path: str) -> tuple[str, str]:
    """Cause and mend."""
    code, status = code_of(error), status_of(error)
    if is_missing(error):
        return "it does not exist", "check the path"
    if code == "NoSuchBucket":
        bucket = path.removeprefix("s3://").partition("/")[0]
        return f"there is no bucket {bucket} at {endpoint()}", "create it, or check its name and the endpoint"
    if code in _MENDS:
        return _MENDS[code]
    if status in {401, 403}:
        return f"access denied{_said(error)}", "check the credentials and the bucket's policy"
    if status == 404 and code.isdigit():
        return f"{endpoint()} does not answer as S3 does (404)", "check AWS_ENDPOINT_URL"
    if status == 501:
        return f"{endpoint()} cannot do that{_said(error)}", "leave out what it does not offer, such as encryption"
    if status:
        return f"S3 answered {status} {code}{_said(error)}", f"look into the state of {endpoint()}"
    if isinstance(error, _CREDENTIALS):
        return _one_line(error).rstrip(
            "."
        ), "give credentials by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
    if passes(error):
        return f"{endpoint()} does not answer as S3 does ({_reason(error)})", "check AWS_ENDPOINT_URL and the network"
    return _one_line(error).rstrip("."), "check the path and the settings of AWS"


def _said(error: Exception) -> str:
    assert isinstance(error, exceptions.ClientError)
    message = " ".join(str(error.response["Error"].get("Message", "")).split()).rstrip(".")
    return f" ({_without_key(message)})" if message and not message.isdigit() else ""


def _reason(error: Exception) -> str:
    if isinstance(error, exceptions.EndpointConnectionError):
        # botocore's own text is the address only.
        return "no connection"
    return f"{type(error).__name__}: {_one_line(error)}"[:200]


def _one_line(error: Exception) -> str:
    return _without_key(" ".join(str(error).split()))


def _without_key(text: str) -> str:
    """Some servers repeat the access key in their answers, and botocore the endpoint's address in its errors."""
    key = os.environ.get("AWS_ACCESS_KEY_ID")
    return _KEY_ID.sub("***", _USER.sub("//", text.replace(key, "***") if key else text))
