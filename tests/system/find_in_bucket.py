"""Objects of a bucket that hold one of several strings: `python -m tests.system.find_in_bucket BUCKET STRING...`."""

from __future__ import annotations

import sys

from mlim_ray.data import storage


def main(bucket: str, *strings: str) -> None:
    for file in storage.walk_files(f"s3://{bucket}"):
        path = file.path if storage.is_remote(file.path) else f"s3://{bucket}/{file.path}"
        content = storage.read_bytes(path)
        if any(string.encode() in content for string in strings):
            print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
