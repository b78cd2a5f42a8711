"""Large objects, written in parts: nothing is seen of one before its last request."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from mlim_ray.data.s3.client import client, encryption
from mlim_ray.data.s3.errors import explained
from mlim_ray.data.s3.failures import code_of, status_of
from mlim_ray.data.s3.objects import md5, split, stat
from mlim_ray.data.s3.retries import retried
from mlim_ray.data.storage_error import StorageError

PART_BYTES = 16 << 20
# Some servers take no more; AWS takes 10,000.
MAX_PARTS = 1000
_THREADS = 4
_ABORT_BUDGET_S = 5.0

logger = logging.getLogger(__name__)


def write_in_parts(path: str, data: memoryview) -> None:
    """Write an object in parts, some at a time; S3 checks the MD5 of each. What fails leaves nothing visible."""
    bucket, key = split(path)
    place = {"Bucket": bucket, "Key": key}
    place["UploadId"] = retried(path, lambda: client().create_multipart_upload(**place, **encryption()))["UploadId"]
    try:
        parts = _write_parts(path, place, data)
        _complete(path, place, parts, len(data))
    except BaseException:
        _abort(path, place)
        raise


def abort_unfinished(folder: str, older_than_s: float) -> int:
    """Drop the unfinished uploads of keys below `folder`; gives their number.

    Raises StorageError. Where S3 does not let us look for them, that is logged and 0 given.
    """
    bucket, _ = split(folder)
    before = datetime.now(UTC) - timedelta(seconds=older_than_s)
    try:
        with explained("list the unfinished uploads of", folder):
            unfinished = [found for found in _unfinished(folder) if found["Initiated"] <= before or not older_than_s]
    except StorageError as error:
        if error.__cause__ is None or status_of(error.__cause__) not in {403, 405, 501}:  # type: ignore[arg-type]
            raise
        logger.warning("%s; let a lifecycle rule of the bucket drop them", error)
        return 0
    for found in unfinished:
        path = f"s3://{bucket}/{found['Key']}"
        place = {"Bucket": bucket, "Key": found["Key"], "UploadId": found["UploadId"]}
        with explained("drop the unfinished upload of", path):
            try:
                retried(path, partial(client().abort_multipart_upload, **place))
            except Exception as error:
                # Somebody else dropped it, or ended it.
                if code_of(error) != "NoSuchUpload":
                    raise
    return len(unfinished)


def _write_parts(path: str, place: dict[str, str], data: memoryview) -> list[dict[str, Any]]:
    size = max(PART_BYTES, -(-len(data) // MAX_PARTS))
    starts = range(0, len(data), size)

    def write_part(number: int) -> dict[str, Any]:
        body = bytes(data[starts[number - 1] :][:size])
        options = {**place, "PartNumber": number, "Body": body, "ContentMD5": md5(body)}
        return {"PartNumber": number, "ETag": retried(path, lambda: client().upload_part(**options))["ETag"]}

    with ThreadPoolExecutor(min(_THREADS, len(starts))) as pool:
        try:
            return list(pool.map(write_part, range(1, len(starts) + 1)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _complete(path: str, place: dict[str, str], parts: list[dict[str, Any]], num_bytes: int) -> None:
    num_tries = 0

    def complete() -> None:
        nonlocal num_tries
        num_tries += 1
        try:
            client().complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
        except Exception as error:
            if num_tries == 1 or code_of(error) != "NoSuchUpload":
                raise
            # An earlier try may have come to its end, only its answer was lost.
            found = stat(path)
            if found is None or found.num_bytes != num_bytes or not found.etag.endswith(f"-{len(parts)}"):
                raise

    retried(path, complete)


def _abort(path: str, place: dict[str, str]) -> None:
    try:
        retried(path, lambda: client().abort_multipart_upload(**place), _ABORT_BUDGET_S)
    except Exception as error:
        # The error that led here is the one to be raised.
        logger.warning("%s: the parts of an unfinished upload are left (%s)", path, type(error).__name__)


def _unfinished(folder: str) -> Iterator[dict[str, Any]]:
    bucket, key = split(folder.rstrip("/"))
    options: dict[str, Any] = {"Bucket": bucket, "Prefix": f"{key}/" if key else ""}
    while True:
        page = retried(folder, partial(client().list_multipart_uploads, **options))
        yield from page.get("Uploads", [])
        if not page.get("IsTruncated"):
            return
        options |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
