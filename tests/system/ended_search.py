"""The trials of a search that ended on S3, as JSON: `python -m tests.system.ended_search OUT`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from mlim_ray.data import storage
from mlim_ray.training.run_folder import RunFolder
from tests.pipelines.search_runs import trials_in


def main(out: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "study.log"
        copy.write_bytes(storage.read_bytes(RunFolder(out).file("study.log")))
        trials = trials_in(JournalStorage(JournalFileBackend(str(copy))), out)
    rows = [
        {"number": trial.number, "state": trial.state.name, "scores": trial.intermediate_values} for trial in trials
    ]
    print(json.dumps(rows))


if __name__ == "__main__":
    main(sys.argv[1])
