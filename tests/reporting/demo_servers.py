"""A demo that is being served: a small model, and a gallery of generated records beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlim_ray
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.inference.answer import Respondent
from mlim_ray.inference.gallery import open_gallery
from mlim_ray.reporting.demo_server import DemoServer
from tests.exported_runs import write_exported_run


@contextmanager
def demo_of(folder: Path, name: str) -> Iterator[DemoServer]:
    """Serves until the block ends; the page calls the run by `name`."""
    model = mlim_ray.load(write_exported_run(folder), device="cpu")
    gallery = open_gallery("generated:100", model, PrepareConfig(), 30)
    with DemoServer(Respondent(model, gallery), name, "A small model.", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
