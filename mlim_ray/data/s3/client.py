"""One botocore client for each process, and the settings that botocore's own chain does not have."""

from __future__ import annotations

import os
import threading
from typing import Any

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
"""a server that sends nothing for so long is asked again"""
FIRST_CONNECT_TIMEOUT_S = 3.0
FIRST_READ_TIMEOUT_S = 5.0
ENCRYPTION_VARIABLE = "MLIM_RAY_S3_SSE"
KEY_VARIABLE = "MLIM_RAY_S3_SSE_KMS_KEY_ID"
_ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")
_MAX_CONNECTIONS = 64
_METADATA_ATTEMPTS = 3

_locks: dict[int, threading.Lock] = {}
_clients: dict[tuple[int, bool], Any] = {}


def client(*, first_contact: bool = False) -> Any:
    """The process's botocore client for S3; with short time-outs for `first_contact`. Safe in threads and forks.

    It makes no second attempts itself: `retries` does, by the clock.

    Raises botocore's errors where there are no credentials, or the profile or the endpoint cannot be.
    """
    # A forked child must share neither its parent's connections nor a lock that was held at that moment.
    name = (os.getpid(), first_contact)
    with _locks.setdefault(name[0], threading.Lock()):
        if name not in _clients:
            _clients[name] = _connect(first_contact)
        return _clients[name]


def endpoint() -> str:
    """The endpoint that is asked, without anything secret that a person wrote into its address."""
    scheme, _, rest = str(client().meta.endpoint_url).partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def encryption() -> dict[str, str]:
    """What is asked of S3 for every object that is written: nothing, or encryption with S3's keys or a KMS key.

    Raises ValueError for a way of encryption that S3 does not know.
    """
    kind, key = os.environ.get(ENCRYPTION_VARIABLE), os.environ.get(KEY_VARIABLE)
    if not kind:
        if key:
            raise ValueError(
                f"{KEY_VARIABLE} is given without {ENCRYPTION_VARIABLE}; set {ENCRYPTION_VARIABLE}=aws:kms"
            )
        return {}
    if kind not in _ENCRYPTIONS:
        raise ValueError(f"{ENCRYPTION_VARIABLE}: given {kind!r}, expected one of {', '.join(_ENCRYPTIONS)}")
    if not key:
        return {"ServerSideEncryption": kind}
    if kind == "AES256":
        raise ValueError(f"{KEY_VARIABLE} goes with aws:kms; set {ENCRYPTION_VARIABLE}=aws:kms, or leave the key out")
    return {"ServerSideEncryption": kind, "SSEKMSKeyId": key}


def _connect(first_contact: bool) -> Any:
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import NoCredentialsError

    session = botocore.session.get_session()
    if session.get_config_variable("metadata_service_num_attempts") == 1:
        # Many workers that start at once overwhelm an instance's metadata service.
        session.set_config_variable("metadata_service_num_attempts", _METADATA_ATTEMPTS)
    if session.get_credentials() is None:
        # Found out here, a client without them is not kept.
        raise NoCredentialsError
    config = Config(
        connect_timeout=FIRST_CONNECT_TIMEOUT_S if first_contact else CONNECT_TIMEOUT_S,
        read_timeout=FIRST_READ_TIMEOUT_S if first_contact else READ_TIMEOUT_S,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=_MAX_CONNECTIONS,
        # What is written carries its MD5; newer kinds of checksums are unknown to many servers.
        request_checksum_calculation="when_required",
    )
    try:
        return session.create_client("s3", config=config)
    except ValueError as error:
        raise ValueError(f"AWS_ENDPOINT_URL: {error}; expected an address such as https://s3.example.com") from error
