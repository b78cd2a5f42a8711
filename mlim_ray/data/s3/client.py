"""One client for each process, over s3fs, and the settings that botocore's own chain does not have."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from mlim_ray.data.s3.retries import retry_budget_s

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
_clients: dict[tuple[int, bool], Client] = {}


def client(*, first_contact: bool = False) -> Client:
    """The process's client for S3; with short time-outs for `first_contact`. Safe in threads and forks.

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
    scheme, _, rest = client().endpoint.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def object_store_options() -> dict[str, str]:
    """What a library with a client of its own has to be told to ask the same server, by the names of `object_store`.

    It holds the credentials: for that library alone, never to be kept, shown or sent.
    """
    asked = client()
    return {
        "aws_endpoint": asked.endpoint,
        **asked.credentials(),
        "aws_virtual_hosted_style_request": "false",
        "allow_http": "true",
        "client_max_retries": "1000",
        "client_retry_timeout": f"{retry_budget_s():.0f}",
        "connect_timeout": f"{CONNECT_TIMEOUT_S:.0f} seconds",
        "timeout": f"{READ_TIMEOUT_S:.0f} seconds",
    }


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


class Client:
    """The calls of S3's own API, `client.get_object(Bucket=..., Key=...)`, over the session of an s3fs file system.

    s3fs finds credentials, endpoint and region and keeps the connections. Its own calls retry by count and hide what
    S3 answered, so its client is asked directly: errors are botocore's, bodies are read as they arrive.
    """

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem

    @property
    def endpoint(self) -> str:
        """The address that is asked."""
        return str(self._filesystem.s3.meta.endpoint_url)

    def credentials(self) -> dict[str, str]:
        """Region and present credentials by the names of `object_store`."""
        found = self._sync(self._credentials())
        given = {
            "aws_region": self._filesystem.s3.meta.region_name or "us-east-1",
            "aws_access_key_id": found.access_key,
            "aws_secret_access_key": found.secret_key,
            "aws_session_token": found.token,
        }
        return {name: str(value) for name, value in given.items() if value}

    async def _credentials(self) -> Any:
        found = await self._filesystem.session.get_credentials()
        return await found.get_frozen_credentials()

    def __getattr__(self, call: str) -> Callable[..., Any]:
        if call.startswith("_"):
            raise AttributeError(call)

        def ask(**options: Any) -> Any:
            answer = self._sync(self._ask(call, options))
            if "Body" in answer:
                answer["Body"] = _Body(self, answer["Body"])
            return answer

        return ask

    async def _ask(self, call: str, options: dict[str, Any]) -> Any:
        s3 = await self._filesystem.set_session()
        return await getattr(s3, call)(**options)

    def _sync(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        # The thread of s3fs runs it; no limit of time, since each read and connection has its own.
        return asyncio.run_coroutine_threadsafe(coroutine, self._filesystem.loop).result()


class _Body:
    """An object's content on its way."""

    def __init__(self, client: Client, body: Any) -> None:
        self._client = client
        self._body = body

    def read(self, num_bytes: int) -> bytes:
        """The next bytes; none at the end. Raises botocore's error where it breaks off before."""
        return bytes(self._client._sync(self._body.read(num_bytes)))

    def close(self) -> None:
        """Give the connection back."""
        self._client._sync(self._close())

    async def _close(self) -> None:
        # A connection belongs to the thread that reads it.
        self._body.close()


def _connect(first_contact: bool) -> Client:
    import s3fs
    from aiobotocore.session import AioSession
    from botocore.exceptions import NoCredentialsError

    session = AioSession()
    if session.get_config_variable("metadata_service_num_attempts") == 1:
        # Many workers that start at once overwhelm an instance's metadata service.
        session.set_config_variable("metadata_service_num_attempts", _METADATA_ATTEMPTS)
    filesystem = s3fs.S3FileSystem(
        session=session,
        # Without credentials s3fs would ask as nobody; found out here, such a client is not kept.
        anon=False,
        skip_instance_cache=True,
        use_listings_cache=False,
        config_kwargs={
            "connect_timeout": FIRST_CONNECT_TIMEOUT_S if first_contact else CONNECT_TIMEOUT_S,
            "read_timeout": FIRST_READ_TIMEOUT_S if first_contact else READ_TIMEOUT_S,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "max_pool_connections": _MAX_CONNECTIONS,
            # What is written carries its MD5; newer kinds of checksums are unknown to many servers.
            "request_checksum_calculation": "when_required",
        },
    )
    try:
        filesystem.connect()
    except ValueError as error:
        raise ValueError(f"AWS_ENDPOINT_URL: {error}; expected an address such as https://s3.example.com") from error
    client = Client(filesystem)
    if client._sync(session.get_credentials()) is None:
        raise NoCredentialsError
    return client
