"""What is asked again, for how long, and what is told at once."""

import aiohttp
import pytest
from botocore import exceptions
from botocore.parsers import ResponseParserError

from mlim_ray.data.s3.failures import is_missing, passes
from mlim_ray.data.s3.retries import BUDGET_S, GaveUp, Patience, retried, retry_budget_s


def answer(status: int, code: str, operation: str = "GetObject") -> exceptions.ClientError:
    return exceptions.ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        operation,
    )


PASSING = [
    answer(500, "InternalError"),
    answer(503, "SlowDown"),
    answer(503, "503", "HeadObject"),
    answer(429, "TooManyRequests"),
    answer(400, "RequestTimeout"),
    answer(400, "BadDigest"),
    answer(200, "InternalError", "DeleteObjects"),
    exceptions.EndpointConnectionError(endpoint_url="http://x"),
    exceptions.ConnectTimeoutError(endpoint_url="http://x"),
    exceptions.ReadTimeoutError(endpoint_url="http://x"),
    exceptions.ConnectionClosedError(endpoint_url="http://x"),
    exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    exceptions.ResponseStreamingError(error="cut"),
    exceptions.FlexibleChecksumError(error_msg="other"),
    ResponseParserError("html"),
    aiohttp.ClientPayloadError("cut"),
    ConnectionResetError(),
]
STAYING = [
    answer(403, "AccessDenied"),
    answer(403, "403", "HeadObject"),
    answer(403, "InvalidAccessKeyId"),
    answer(403, "SignatureDoesNotMatch"),
    answer(404, "NoSuchBucket"),
    answer(404, "NoSuchKey"),
    answer(412, "PreconditionFailed"),
    answer(501, "NotImplemented"),
    exceptions.NoCredentialsError(),
    exceptions.ParamValidationError(report="bad"),
    ValueError("ours"),
    KeyError("a bug"),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_passes_is_asked_again(error: Exception) -> None:
    errors = [error]

    def call() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert passes(error) and retried("it", call) == "done" and not errors


@pytest.mark.parametrize("error", STAYING, ids=repr)
def test_what_stays_is_told_at_once(error: Exception) -> None:
    num_calls = 0

    def call() -> None:
        nonlocal num_calls
        num_calls += 1
        raise error

    with pytest.raises(type(error)):
        retried("it", call)
    assert num_calls == 1 and not passes(error)


def test_only_a_missing_key_is_missing() -> None:
    assert is_missing(answer(404, "NoSuchKey")) and is_missing(answer(404, "404", "HeadObject"))
    assert not is_missing(answer(404, "NoSuchBucket")) and not is_missing(answer(404, "404", "ListObjectsV2"))
    assert not is_missing(FileNotFoundError())


def test_the_budget_is_of_seconds_and_at_least_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    assert retry_budget_s() == BUDGET_S >= 60
    monkeypatch.setenv("MLIM_RAY_S3_RETRY_S", "0.3")
    error = answer(503, "SlowDown")
    num_calls = 0

    def call() -> None:
        nonlocal num_calls
        num_calls += 1
        raise error

    with pytest.raises(GaveUp) as gave_up:
        retried("it", call)
    assert gave_up.value.error is error and gave_up.value.budget_s == 0.3 and num_calls > 2
    for text in ("-1", "inf", "nan", "soon"):
        monkeypatch.setenv("MLIM_RAY_S3_RETRY_S", text)
        with pytest.raises(ValueError, match="MLIM_RAY_S3_RETRY_S: given .* expected seconds, such as 90"):
            retry_budget_s()


def test_what_arrives_makes_the_budget_whole_again() -> None:
    patience, error = Patience("it", budget_s=0.2), answer(503, "SlowDown")
    for _ in range(12):
        patience.failed(error)
        patience.succeeded()
    with pytest.raises(GaveUp):
        for _ in range(12):
            patience.failed(error)
