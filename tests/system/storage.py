"""The S3 server of a site, as a service of its own: `python -m tests.system.storage FOLDER PYTHON PORT KEY SECRET`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tests.object_store import ObjectStore
from tests.system.hosts import SITE_ADDRESS


def main(folder: str, python: str, port: str, access_key: str, secret_key: str) -> None:
    with ObjectStore(Path(folder), Path(python), int(port), access_key, secret_key, SITE_ADDRESS):
        print("ready", flush=True)
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
