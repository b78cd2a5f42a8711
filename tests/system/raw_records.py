"""A bucket, and the first real records into it: `python -m tests.system.raw_records FOLDER BUCKET ADDRESS NUM_RECORDS`.

FOLDER is one of Parquet files; where it is not there, the bucket stays empty.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pyarrow.parquet as pq

from mlim_ray.data import storage
from mlim_ray.data.s3.client import client


def main(folder: str, bucket: str, address: str, num_records: str) -> None:
    client().create_bucket(Bucket=bucket)
    if Path(folder).is_dir():
        first = pq.read_table(min(Path(folder).glob("*.parquet")))
        file = io.BytesIO()
        pq.write_table(first.slice(0, int(num_records)), file)
        storage.write_bytes_atomically(f"{address}/records.parquet", file.getvalue())


if __name__ == "__main__":
    main(*sys.argv[1:])
