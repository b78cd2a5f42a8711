"""`--init-from` and `mlim-ray diff` as a person uses them: two real runs, the second with the first one's weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mlim_ray.command_line.main import main
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.metrics import read_metrics
from tests.pipelines.test_pretrain import finish, kill, refusal, start, wait_until
from tests.prepared_sets import write_unfilled

pytestmark = pytest.mark.cluster

FLAGS = [
    *("--no-dashboard", "--json", "--train.log-every-steps", "2", "--train.batch-size", "32"),
    *("--probe.num-records", "16", "--probe.linear-train-records", "50", "--prepare.vocabulary-size", "300"),
]
NUM_STEPS = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("init_from")


@pytest.fixture(scope="module")
def first(folder: Path) -> Path:
    finish(start(folder, *FLAGS, "--data", "generated:400", "--steps", str(NUM_STEPS), "--out", "runs/first"))
    return folder / "runs" / "first"


@pytest.fixture(scope="module")
def second(folder: Path, first: Path) -> Path:
    """Two workers on other data, with another seed and schedule; killed, its start removed, and resumed."""
    # A run of its own, so that the first one stays for the other tests.
    shutil.copytree(first, folder / "runs" / "copy")
    flags = ["--data", "generated:250", "--seed", "5", "--steps", "24", "--workers", "2", "--out", "runs/second"]
    flags += ["--train.num-checkpoints-kept", "9", "--train.checkpoint-every-steps", "9", "--init-from", "runs/copy"]
    run = folder / "runs" / "second"
    process = start(folder, *FLAGS, *flags)
    wait_until(process, lambda: any(line["step"] >= 12 for line in read_metrics(str(run))))
    kill(process)
    shutil.rmtree(folder / "runs" / "copy")
    summary = finish(start(folder, "--out", "runs/second", "--resume", "--workers", "2", "--no-dashboard", "--json"))
    assert summary["steps"] == 24
    return run


def test_the_new_run_starts_with_the_last_weights_of_the_earlier_one(first: Path, second: Path) -> None:
    last = CheckpointStore(str(first / "checkpoints")).latest().checkpoint
    store = CheckpointStore(str(second / "checkpoints"))
    assert last is not None and last.step == NUM_STEPS and store.steps() == [0, 9, 18, 24]
    for step in (9, 18, 24):
        shutil.rmtree(second / "checkpoints" / f"step-{step:08d}")
    begun = store.latest().checkpoint
    assert begun is not None and begun.step == begun.trainer_state["step"] == 0
    assert all(torch.equal(begun.weights[name], weight) for name, weight in last.weights.items())
    start_of = json.loads((second / "start.json").read_text())
    assert (start_of["run"], start_of["step"]) == ("runs/copy", NUM_STEPS)


def test_the_new_run_learns_on_with_its_own_schedule_and_data(first: Path, second: Path) -> None:
    lines, before = read_metrics(str(second)), read_metrics(str(first))
    assert [line["step"] for line in lines] == list(range(2, 25, 2))
    # Without the weights both would begin at the same loss.
    assert lines[0]["loss/mlm"] < 0.8 * before[0]["loss/mlm"]
    assert lines[0]["learning_rate"] > before[-1]["learning_rate"] and lines[0]["epoch"] < 1
    config = yaml.safe_load((second / "config.yaml").read_text())
    assert config["model"]["init_from"] == "runs/copy"
    prepared = json.loads((second / "environment.json").read_text())["prepared"]
    assert config["prepare"]["tokenizer"] == f"{prepared}/tokenizer"


def test_the_source_was_split_by_the_earlier_tokenizer(first: Path, second: Path) -> None:
    sets = [json.loads((run / "environment.json").read_text())["prepared"] for run in (first, second)]
    assert sets[0] != sets[1]
    tokenizers = [PreparedSet.open(path).tokenizer() for path in sets]
    assert tokenizers[0].files() == tokenizers[1].files()


@pytest.mark.long
def test_all_trials_of_a_search_start_with_the_earlier_weights(folder: Path, first: Path) -> None:
    flags = [*FLAGS, "--data", "generated:400", "--init-from", "runs/first", "--trials", "3"]
    flags += ["--max-samples", "200", "--search.num-rungs", "1", "--search.max-concurrent-trials", "1"]
    flags += ["--confirm", "false"]
    finish(start(folder, *flags, "--out", "runs/search", experiment="tune_mam"))
    search, before = folder / "runs" / "search", read_metrics(str(first))
    for trial in range(3):
        line = read_metrics(str(search / "trials" / f"{trial:05d}"))[0]
        assert line["step"] == 2 and line["loss/mlm"] < 0.8 * before[0]["loss/mlm"], trial
    assert json.loads((search / "start.json").read_text())["step"] == NUM_STEPS


def test_a_set_of_another_vocabulary_is_refused_before_anything_starts(folder: Path, first: Path) -> None:
    other = str(write_unfilled(folder / "other", "generated:120", vocabulary_size=150))
    line = refusal(folder, "--data", other, "--init-from", "runs/first", "--out", "runs/refused")
    assert (
        line.startswith("--init-from runs/first: its vocabulary (") and f"is not that of {other} (150 pieces)" in line
    )
    assert line.endswith("mlim-ray prepare --tokenizer runs/first/model")
    assert not (folder / "runs" / "refused").exists()


def test_diff_tells_of_other_data_and_another_start(
    first: Path, second: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = diff(capsys, first, second)
    assert found["first_steps"] == {"config": 0, "data": 0, "loss": 2} and found["same_set"] is False
    assert {"model.init_from", "train.num_steps", "train.seed"} <= {knob["knob"] for knob in found["knobs"]}


def diff(capsys: pytest.CaptureFixture[str], a: Path, b: Path) -> dict[str, Any]:
    """The summary of `mlim-ray diff`, which has to leave with 1."""
    with pytest.raises(SystemExit) as left:
        main(["diff", str(a), str(b), "--json"])
    assert left.value.code == 1
    summary: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return summary
