"""Faults in a trial as its results: which are told, in what words, and which are left to another try."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune

from mlim_ray.data.row_groups import DamagedShardError
from mlim_ray.data.storage_error import StorageError
from mlim_ray.pipelines.search.trial_faults import take_folder, telling
from mlim_ray.pipelines.search.trial_job import trial_folder
from mlim_ray.pipelines.search.trial_words import FAULT, IS_OUTSIDE, NUMBER, PARAMETERS, SEED, tune_result
from mlim_ray.training.non_finite import NonFiniteError


class Toy(tune.Trainable):
    """Raises what its config says, where that says."""

    def setup(self, config: dict[str, Any], job: object) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if "in step" in self._trial:
            raise self._trial["in step"]
        return tune_result(8, 0.5, {"probe": 0.5})

    def _begin(self, config: dict[str, Any]) -> None:
        self._trial = config
        if "at the start" in config:
            raise config["at the start"]


def trial(number: int = 0, **others: Any) -> dict[str, Any]:
    return {NUMBER: number, PARAMETERS: {"policy": "mam"}, SEED: 0, **others}


def started(folder: Path, config: dict[str, Any]) -> Any:
    toy = telling(Toy).__new__(telling(Toy))
    toy.setup(config, job=SimpleNamespace(search=str(folder), kind="trials"))
    return toy


@pytest.mark.parametrize("where", ["at the start", "in step"])
@pytest.mark.parametrize(
    ("error", "reason", "is_outside"),
    [
        (
            NonFiniteError("the gradient of step 7 is nan: why; go on with --resume"),
            "the gradient of step 7 is nan: why",
            False,
        ),
        (ValueError("a is 1, expected 2"), "a is 1, expected 2", False),
        (StorageError("cannot write s3://b/k: away"), "cannot write s3://b/k: away", True),
        (DamagedShardError("s.parquet: damaged"), "s.parquet: damaged", True),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), "/data/x: No space left on device", True),
    ],
    ids=["NaN", "mistake", "storage", "shard", "disk"],
)
def test_a_mistake_is_a_result_and_the_next_trial_is_not_hurt(
    tmp_path: Path, where: str, error: Exception, reason: str, is_outside: bool
) -> None:
    toy = started(tmp_path, trial(**{where: error}))
    result = toy.step()
    assert (result[FAULT], result[IS_OUTSIDE], result["done"]) == (reason, is_outside, True)
    assert toy.reset_config(trial(1))
    assert FAULT not in toy.step()


@pytest.mark.parametrize("error", [RuntimeError("a connection was lost"), MemoryError(), OSError(errno.EIO, "once")])
def test_what_another_try_may_help_is_raised(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)):
        started(tmp_path, trial(**{"in step": error})).step()


def test_a_folder_that_another_trial_left_under_the_number_is_emptied(tmp_path: Path) -> None:
    folder = trial_folder(str(tmp_path), "trials", 3)
    take_folder(str(tmp_path), "trials", trial(3))
    Path(folder.file("checkpoint")).write_text("of this trial")
    take_folder(str(tmp_path), "trials", trial(3))
    assert Path(folder.file("checkpoint")).exists()
    for other in (trial(3) | {PARAMETERS: {"policy": "alternating"}}, trial(3) | {SEED: 1}):
        take_folder(str(tmp_path), "trials", other)
        assert not Path(folder.file("checkpoint")).exists()
        Path(folder.file("checkpoint")).write_text("of the other")
