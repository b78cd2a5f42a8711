"""What goes wrong in trials of a search: each is recorded with its reason, tried again where that can help, and the
search goes on to its answer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from optuna.trial import FrozenTrial, TrialState

from mlim_ray.pipelines.search.study import reason_of
from tests.pipelines.search_runs import SMALL, SearchRun

pytestmark = pytest.mark.cluster

# Some of the searched trials have a rate that overflows, some no loss at all, some nothing of it.
SPACE = "train.learning_rate=0.003|1e9,mlm.weight=0|1,recon.weight=0|10"
NUM_TRIALS = 9


@pytest.fixture(scope="module")
def struck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchRun]:
    """A search whose first trial loses its process between its rungs, and whose space holds what cannot be."""
    folder = tmp_path_factory.mktemp("struck")
    run = SearchRun(folder, str(folder / "struck"))
    flags = ["--space", SPACE, "--search.sampler", "random", "--trials", str(NUM_TRIALS), "--search.num-retries", "1"]
    try:
        run.start(*flags).wait_for(lambda: any(trial.intermediate_values for trial in run.trials()))
        (trial,) = [*run.below("ray::trial-"), *run.below("ray::PretrainTrial")]
        trial.kill()
        run.finish()
        yield run
    finally:
        run.end()


def failed(run: SearchRun, words: str) -> list[FrozenTrial]:
    return [trial for trial in run.trials() if words in (reason_of(trial) or "")]


def test_a_trial_that_loses_its_process_starts_again_from_its_last_rung(
    struck: SearchRun, undisturbed_search: SearchRun
) -> None:
    assert "trial 0: its process died: it starts again from its last rung" in struck.said
    first = struck.trials()[0]
    assert first.state == TrialState.COMPLETE
    assert first.intermediate_values == undisturbed_search.trials()[0].intermediate_values


@pytest.mark.parametrize(
    "words",
    [
        "the gradient of step ",
        "mlm.weight and recon.weight are both 0",
    ],
)
def test_a_trial_that_cannot_be_is_recorded_with_its_reason(struck: SearchRun, words: str) -> None:
    trials = failed(struck, words)
    assert trials and all(trial.state == TrialState.FAIL for trial in trials)
    assert all("\n" not in (reason_of(trial) or "") for trial in trials)
    rows = {row["trial"]: row for row in pq.read_table(Path(struck.out) / "trials.parquet").to_pylist()}
    assert all(rows[trial.number]["reason"] == reason_of(trial) for trial in trials)


def test_only_what_another_try_can_help_is_tried_again(struck: SearchRun) -> None:
    again = {int(line.split()[1].rstrip(":")) for line in struck.said.splitlines() if "it starts again" in line}
    assert again == {0}


def test_the_search_ends_with_its_answer(struck: SearchRun) -> None:
    trials = struck.trials()
    assert len(trials) == NUM_TRIALS and all(trial.state.is_finished() for trial in trials)
    assert all((reason_of(trial) is None) == (trial.state != TrialState.FAIL) for trial in trials)
    assert struck.summary["confirmation"]["arms"] and (Path(struck.out) / "report.html").is_file()


@pytest.mark.long
def test_a_damaged_shard_ends_the_search_and_not_its_trials(undisturbed_search: SearchRun, tmp_path: Path) -> None:
    flags = [*SMALL, "--feed", "stream"]
    run = SearchRun(tmp_path, str(tmp_path / "damaged"), flags)
    shutil.copytree(undisturbed_search.folder / "prepared", tmp_path / "prepared")
    (shard,) = (tmp_path / "prepared").glob("*/shards/train-00000.parquet")
    whole = shard.read_bytes()
    content = bytearray(whole)
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    try:
        run.start()
        line = run.refused(75)
        assert shard.name in line and f"--out {run.out} --resume" in line
        assert [trial.state for trial in run.trials()] == [TrialState.RUNNING]
        shard.write_bytes(whole)
        assert [trial["state"] for trial in run.resume().finish()["trials"]] == ["COMPLETE"]
    finally:
        run.end()


@pytest.mark.long
def test_a_search_without_a_whole_trial_says_why(tmp_path: Path) -> None:
    run = SearchRun(tmp_path, str(tmp_path / "none"), [*SMALL, "--train.learning-rate", "1e9"])
    try:
        line = run.start().refused()
        assert "no trial of" in line and "the gradient of step" in line
    finally:
        run.end()


def test_a_trial_that_ray_ends_for_its_memory_says_so(undisturbed_search: SearchRun, tmp_path: Path) -> None:
    shutil.copytree(undisturbed_search.folder / "prepared", tmp_path / "prepared")
    flags = [*SMALL, "--feed", "stream", "--search.num-retries", "1"]
    # Less than any machine uses: Ray ends whatever runs.
    environment = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "50"}
    run = SearchRun(tmp_path, str(tmp_path / "memory"), flags, environment)
    try:
        line = run.start().refused()
        assert "out of memory: " in line and "running low on memory" in line
        assert "trial 0: out of memory: " in run.said
    finally:
        run.end()
