"""The settings that the AWS chain does not have, and what is shown of those that it has."""

import pytest
from botocore import exceptions

from mlim_ray.data.s3.client import encryption, endpoint
from mlim_ray.data.s3.errors import explained
from mlim_ray.data.s3.retries import GaveUp
from mlim_ray.data.storage import StorageError

KIND, KEY = "MLIM_RAY_S3_SSE", "MLIM_RAY_S3_SSE_KMS_KEY_ID"


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, {}),
        ({KIND: "AES256"}, {"ServerSideEncryption": "AES256"}),
        ({KIND: "aws:kms"}, {"ServerSideEncryption": "aws:kms"}),
        ({KIND: "aws:kms:dsse", KEY: "k"}, {"ServerSideEncryption": "aws:kms:dsse", "SSEKMSKeyId": "k"}),
    ],
)
def test_encryption_is_what_was_asked_for(
    given: dict[str, str], asked: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (KIND, KEY):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert encryption() == asked


@pytest.mark.parametrize("given", [{KIND: "aes"}, {KEY: "k"}, {KIND: "AES256", KEY: "k"}])
def test_encryption_that_cannot_be_is_refused(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="MLIM_RAY_S3_SSE"):
        encryption()


def test_neither_address_nor_error_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlim_ray.data.s3.client._clients", {})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "acct:tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "5ecret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://someone:5ecret@127.0.0.1:1")
    assert endpoint() == "http://127.0.0.1:1"
    message = "The key acct:tester or AKIAIOSFODNN7EXAMPLE may not do that"
    error = exceptions.ClientError(
        {"Error": {"Code": "AccessDenied", "Message": message}, "ResponseMetadata": {"HTTPStatusCode": 403}},  # type: ignore[typeddict-item]
        "GetObject",
    )
    with pytest.raises(StorageError) as refused, explained("read", "s3://shop/x"):
        raise error
    assert str(refused.value) == (
        "cannot read s3://shop/x: access denied (The key *** or *** may not do that); "
        "check the credentials and the bucket's policy"
    )
    silent = exceptions.ReadTimeoutError(endpoint_url="http://someone:5ecret@127.0.0.1:1/shop")
    with pytest.raises(StorageError, match="127.0.0.1:1/shop") as refused, explained("read", "s3://shop/x"):
        raise GaveUp(silent, 90)
    assert "5ecret" not in str(refused.value)
