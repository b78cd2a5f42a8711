"""The first contact with S3: what cannot work is told within seconds, before any work.

Later on the same failure would be taken for a passing one and met with patience.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from mlim_ray.data import storage

LIMIT_S = 7.0
PROBE_NAME = ".mlim-ray-probe"
"""a key that is written below a destination and deleted again; one that is left there is ours"""
_BUDGET_S = 2.0


def check_readable(*paths: str | None) -> None:
    """Raise StorageError, within LIMIT_S, if S3 does not let us list one of `paths`; local paths are not looked at.

    The message names the bucket, the cause (connection, credentials, bucket) and the mend. That a key exists is not
    asked.
    """
    for path in paths:
        if path is not None and storage.is_remote(path):
            _within_limit("read", path, _list_one)


def check_writable(*paths: str | None) -> None:
    """Raise StorageError, within LIMIT_S, if S3 does not let us write and delete below one of `paths`.

    As `check_readable`; it writes a probe of a few bytes below the path and deletes it.
    """
    for path in paths:
        if path is not None and storage.is_remote(path):
            _within_limit("write", path, _write_one)


def _within_limit(action: str, path: str, ask: Callable[[str], None]) -> None:
    from mlim_ray.data.s3.errors import explained

    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            with explained(action, path):
                ask(path)
        except BaseException as error:
            errors.append(error)

    # In a thread of its own: no time-out bounds a look-up of names, or what a chain of credentials asks.
    thread = threading.Thread(target=attempt, name="first contact", daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    if thread.is_alive():
        raise storage.StorageError(
            f"cannot {action} {path}: S3 did not answer within {LIMIT_S:.0f} s; check AWS_ENDPOINT_URL and the network"
        )
    if errors:
        raise errors[0]


def _list_one(path: str) -> None:
    from mlim_ray.data.s3.client import client
    from mlim_ray.data.s3.objects import split

    bucket, key = split(path)
    _ask(path, lambda: client(first_contact=True).list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1))


def _write_one(path: str) -> None:
    from mlim_ray.data.s3.client import client, encryption
    from mlim_ray.data.s3.objects import md5, split

    bucket, key = split(storage.join(path, PROBE_NAME))
    body = b"written and deleted by mlim-ray to see that it may\n"
    options = {"Bucket": bucket, "Key": key, "Body": body, "ContentMD5": md5(body), **encryption()}
    _ask(path, lambda: client(first_contact=True).put_object(**options))
    _ask(path, lambda: client(first_contact=True).delete_object(Bucket=bucket, Key=key))


def _ask(path: str, call: Callable[[], object]) -> None:
    """Patience of some seconds where S3 answers that it is busy, none where nothing answers."""
    from mlim_ray.data.s3.failures import passes, status_of
    from mlim_ray.data.s3.retries import GaveUp, retried

    def attempt() -> None:
        try:
            call()
        except Exception as error:
            if passes(error) and not status_of(error):
                raise GaveUp(error, 0.0) from error
            raise

    retried(path, attempt, _BUDGET_S)
