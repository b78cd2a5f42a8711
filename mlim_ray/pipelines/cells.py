"""Work that consists of many small parts, each with a file of its own, so that whoever goes on repeats none."""

from collections.abc import Callable, Mapping
from typing import Any

import ray

from mlim_ray.data import storage
from mlim_ray.pipelines.waiting import wait_for_one
from mlim_ray.reporting.progress import Stage
from mlim_ray.training.run_folder import RunFolder


def run_cells(
    folder: RunFolder,
    cells: Mapping[str, Callable[[], "ray.ObjectRef[dict[str, Any]]"]],
    name: str,
    unit: str,
    *,
    at_once: int | None = None,
) -> None:
    """Run the cells that have no file yet; each one's file is written when it ends.

    Args:
        folder: where the files lie.
        cells: by the name of its file, what starts each; it gives the content of its file.
        name: of the stage of progress.
        unit: what cells are, in the plural.
        at_once: most of them that run at a time; None leaves it to Ray.

    Raises what a cell raised; the files of those that ended before it stay.
    """
    waiting = {file: start for file, start in cells.items() if not storage.exists(folder.file(file))}
    running: dict[Any, str] = {}
    done = len(cells) - len(waiting)
    with Stage(name, len(cells), unit, already_done=done) as stage:
        while waiting or running:
            while waiting and (at_once is None or len(running) < at_once):
                file = next(iter(waiting))
                running[waiting.pop(file)()] = file
            ready = wait_for_one(list(running))
            folder.write_json(running.pop(ready), ray.get(ready))
            done += 1
            stage.advance(done)
