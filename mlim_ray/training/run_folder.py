"""The run folder and its contract (C7): one place for every path in it."""

import json
import os
import re
from pathlib import Path
from typing import Any

from mlim_ray.data import storage
from mlim_ray.data.contact import PROBE_NAME
from mlim_ray.data.lease import refuse_if_owned
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.checkpoint_policy import CheckpointPolicy

_CONFIG = "config.yaml"
_RUNS = Path("runs")


class RunFolder:
    """Paths of a run or a search, on local disk or S3."""

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")

    def file(self, *parts: str) -> str:
        """A path in the folder."""
        return storage.join(self.path, *parts)

    @property
    def anywhere(self) -> str:
        """The path for processes that may have another working folder than this one."""
        return self.path if storage.is_remote(self.path) else os.path.abspath(self.path)

    def checkpoints(self, policy: CheckpointPolicy | None = None) -> CheckpointStore:
        """The run's checkpoints; `policy` says which are kept where any are written."""
        return CheckpointStore(self.file("checkpoints"), policy)

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file atomically."""
        storage.write_bytes_atomically(self.file(name), (json.dumps(content, indent=1) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """Read a JSON file."""
        return json.loads(storage.read_bytes(self.file(name)))

    def write_text(self, name: str, content: str) -> None:
        """Write a text file atomically."""
        storage.write_bytes_atomically(self.file(name), content.encode())

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return storage.exists(self.file(_CONFIG))

    @property
    def is_finished(self) -> bool:
        """Whether the run was ended; its evaluation is written last."""
        return storage.exists(self.file("evaluation.json"))


def claim_folder(out: str | None, experiment: str, *, resume: bool, overwrite: bool) -> RunFolder:
    """The folder of a new or continued run.

    Args:
        out: the folder asked for; None takes the next free `runs/<experiment>-<NNN>`.
        experiment: name of the experiment.
        resume: continue the run in `out`.
        overwrite: remove the run in `out` first.

    Raises:
        ValueError: `out` holds a run and neither flag is given, or one that a living process still runs, or
            `resume` and it holds none, or it holds other files.
    """
    if out is None:
        return RunFolder(str(_next_free(experiment)))
    folder = _checked(out, resume=resume, overwrite=overwrite)
    if resume:
        return folder
    if folder.exists:
        storage.remove_tree(out)
    if not storage.is_remote(out):
        Path(out).mkdir(parents=True, exist_ok=True)
    return folder


def describe_folder(out: str | None, experiment: str, *, resume: bool, overwrite: bool) -> RunFolder:
    """The folder that `claim_folder` would take, without taking it; raises as it does."""
    if out is None:
        return RunFolder(str(_RUNS / f"{experiment}-{_next_number(experiment):03d}"))
    return _checked(out, resume=resume, overwrite=overwrite)


def _checked(out: str, *, resume: bool, overwrite: bool) -> RunFolder:
    folder = RunFolder(out)
    if resume:
        if not folder.exists:
            raise ValueError(f"--resume: {out} holds no run to continue; start one without --resume")
    elif folder.exists:
        if not overwrite:
            state = "finished" if folder.is_finished else "unfinished"
            raise ValueError(
                f"{out} holds a run that is {state}; continue it with --resume, or replace it with --overwrite"
            )
        refuse_if_owned(out)
    elif set(storage.list_names(out)) - {"lease.json", PROBE_NAME}:
        raise ValueError(f"{out} holds files that are no run of ours; choose an empty folder with --out")
    return folder


def _next_number(experiment: str) -> int:
    pattern = re.compile(re.escape(experiment) + r"-(\d{3,})")
    entries = _RUNS.iterdir() if _RUNS.is_dir() else ()
    return max((int(match[1]) for entry in entries if (match := pattern.fullmatch(entry.name))), default=0) + 1


def _next_free(experiment: str) -> Path:
    _RUNS.mkdir(exist_ok=True)
    number = _next_number(experiment)
    while True:
        folder = _RUNS / f"{experiment}-{number:03d}"
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder
