"""Where two runs part, and in what: real run folders, spoilt in known places."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlim_ray.config import FeedConfig, IndependentConfig, ProbeConfig
from mlim_ray.training.batch import Batch
from mlim_ray.training.metrics import KEYS, MASKS, Line
from mlim_ray.training.run_diff import compare, diff_runs
from mlim_ray.training.run_facts import RunFacts, read_run
from mlim_ray.training.trainer import Trainer
from tests.made_runs import run_config, train_run

CONFIG = run_config()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_run(tmp_path_factory.mktemp("runs") / "undisturbed", CONFIG)


def spoil_weights(step: int, trainer: Trainer, batch: Batch) -> Batch:
    if step == 6:
        with torch.no_grad():
            trainer.model.word_embeddings.weight[7, 3] += 1e-2
    return batch


def spoil_masks(step: int, trainer: Trainer, batch: Batch) -> Batch:
    if step != 6:
        return batch
    hidden = batch.cell_hidden_BN.copy()
    hidden[2, 3] ^= True
    return batch._replace(cell_hidden_BN=hidden)


def spoil_keys(step: int, trainer: Trainer, batch: Batch) -> Batch:
    # The second record is lost, the first one seen twice.
    return batch if step != 6 else batch.take(np.array([0, 0, *range(2, len(batch.key_hash_B))]))


def test_equal_runs_have_no_difference(undisturbed: Path, tmp_path: Path) -> None:
    found = diff_runs(str(undisturbed), str(train_run(tmp_path / "again", CONFIG)))
    assert found.first_steps == {} and found.entries == () and found.knobs == () and found.largest is None
    assert found.steps == (2, 4, 6, 8, 10, 12) and found.num_means == 6 and found.has_digests and found.same_set


def test_a_run_that_was_killed_and_resumed_has_none_either(undisturbed: Path, tmp_path: Path) -> None:
    run = train_run(tmp_path / "killed", CONFIG, stop_step=8)
    unfinished = diff_runs(str(undisturbed), str(run))
    assert unfinished.first_steps == {} and unfinished.steps == (2, 4, 6, 8)
    train_run(run, CONFIG)
    assert [json.loads(line)["step"] for line in (run / "metrics.redone.jsonl").read_text().splitlines()] == [6, 8]
    resumed = diff_runs(str(undisturbed), str(run))
    assert resumed.first_steps == {} and resumed.steps == (2, 4, 6, 8, 10, 12)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (spoil_weights, {"loss": 8}),
        (spoil_masks, {"masks": 8, "loss": 8}),
        (spoil_keys, {"data": 8, "loss": 8}),
    ],
)
def test_the_step_and_the_part_are_found(
    undisturbed: Path, tmp_path: Path, change: object, parts: dict[str, int]
) -> None:
    # Step 7 is the first that differs, and the line of step 8 the first that tells of it.
    run = train_run(tmp_path / "spoilt", CONFIG, change=change)  # type: ignore[arg-type]
    found = diff_runs(str(undisturbed), str(run))
    assert found.first_steps == parts and found.knobs == ()
    entries = {entry.entry: entry for entry in found.entries}
    lines = [next(line for line in read_run(str(run)).lines if line["step"] == 8) for run in (undisturbed, run)]
    assert {"loss/total", "loss/mlm", "gradient_norm"} <= entries.keys()
    assert (KEYS in entries, MASKS in entries) == ("data" in parts, "masks" in parts)
    assert not any(name.startswith("time/") for name in entries)
    for name, entry in entries.items():
        a, b = lines[0][name], lines[1][name]
        assert (entry.step, entry.a, entry.b) == (8, a, b)
        assert entry.relative is None if isinstance(a, str) else entry.relative == abs(a - b) / max(abs(a), abs(b))


def test_a_tolerance_is_for_losses_alone(undisturbed: Path, tmp_path: Path) -> None:
    weights = str(train_run(tmp_path / "weights", CONFIG, change=spoil_weights))
    exact = diff_runs(str(undisturbed), weights)
    assert exact.largest is not None and exact.largest.relative is not None and exact.largest.step >= 8
    tolerant = diff_runs(str(undisturbed), weights, tolerance=exact.largest.relative)
    assert tolerant.first_steps == {} and tolerant.entries == () and tolerant.largest == exact.largest
    assert diff_runs(str(undisturbed), weights, tolerance=exact.largest.relative * 0.999).first_steps
    masks = str(train_run(tmp_path / "masks", CONFIG, change=spoil_masks))
    assert diff_runs(str(undisturbed), masks, tolerance=10.0).first_steps == {"masks": 8}


def test_runs_that_log_at_other_steps_are_compared_at_those_they_share(undisturbed: Path, tmp_path: Path) -> None:
    config = run_config(log_every_steps=3)
    found = diff_runs(str(undisturbed), str(train_run(tmp_path / "threes", config)))
    assert found.steps == (6, 12) and found.num_means == 0 and found.has_digests
    assert found.first_steps == {}
    ((knob, a, b, decides),) = found.knobs
    assert (knob, a, b, decides) == ("train.log_every_steps", 2, 3, False)
    # Its digests are sums over other steps and still tell.
    for change, parts in ((spoil_masks, {"masks": 12, "loss": 12}), (spoil_keys, {"data": 12, "loss": 12})):
        run = train_run(tmp_path / change.__name__, config, change=change)
        assert diff_runs(str(undisturbed), str(run)).first_steps == parts


def test_knobs_that_differ_are_listed_and_only_some_decide(undisturbed: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(
        update={"masking": IndependentConfig(), "feed": FeedConfig(kind="resident"), "probe": ProbeConfig(seed=4)}
    )
    found = diff_runs(str(undisturbed), str(train_run(tmp_path / "other", config)))
    assert found.first_steps == {"config": 0, "masks": 2, "loss": 2}
    knobs = {knob.knob: knob for knob in found.knobs}
    assert (knobs["masking.kind"].a, knobs["masking.kind"].b) == ("mam", "independent")
    assert (knobs["masking.text_ratio"].a, knobs["masking.text_ratio"].b) == (None, 0.15)
    assert {knob.knob for knob in found.knobs if not knob.decides} == {"feed.kind", "probe.seed"}


def test_another_seed_is_other_data_from_the_first_line_on(undisturbed: Path, tmp_path: Path) -> None:
    found = diff_runs(str(undisturbed), str(train_run(tmp_path / "seed", run_config(seed=1))))
    assert found.first_steps == {"config": 0, "data": 2, "loss": 2}
    assert [(knob.knob, knob.a, knob.b) for knob in found.knobs] == [("train.seed", 0, 1)]


def test_another_prepared_set_is_told_before_any_step(undisturbed: Path, tmp_path: Path) -> None:
    other = diff_runs(str(undisturbed), str(train_run(tmp_path / "other", CONFIG, manifest_sha256="b" * 64)))
    assert other.first_steps == {"data": 0} and other.same_set is False
    unknown = diff_runs(str(undisturbed), str(train_run(tmp_path / "unknown", CONFIG, manifest_sha256=None)))
    assert unknown.first_steps == {} and unknown.same_set is None


def test_lines_without_digests_are_compared_by_what_they_have(undisturbed: Path, tmp_path: Path) -> None:
    run = train_run(tmp_path / "older", CONFIG)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    older = [{name: value for name, value in line.items() if name not in (KEYS, MASKS)} for line in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in older))
    found = diff_runs(str(undisturbed), str(run))
    assert found.first_steps == {} and not found.has_digests and found.num_means == 6


def test_what_cannot_be_compared_is_an_error(undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent holds no run: it has no config\.yaml"):
        diff_runs(str(undisturbed), str(tmp_path / "absent"))
    barely = train_run(tmp_path / "barely", CONFIG, stop_step=1)
    with pytest.raises(ValueError, match=r"barely \(up to step 0\) have no logged step in common"):
        diff_runs(str(undisturbed), str(barely))
    # That the seed differs can be told already.
    other = train_run(tmp_path / "seed", run_config(seed=1), stop_step=1)
    assert diff_runs(str(undisturbed), str(other)).first_steps == {"config": 0}
    (barely / "environment.json").write_text("{")
    with pytest.raises(ValueError, match=r"environment\.json is damaged"):
        diff_runs(str(undisturbed), str(barely))


def facts(lines: list[Line]) -> RunFacts:
    return RunFacts("run", {}, None, None, lines)


def logged(values: list[int], every: int) -> list[Line]:
    """Lines of a run whose step i has the digest values[i]."""
    edges = [*range(0, len(values), every), len(values)]
    return [
        {"step": stop, KEYS: f"{sum(values[start:stop]) % 2**64:016x}", MASKS: "0" * 16}
        for start, stop in pairwise(edges)
    ]


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30),
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(1, 2**64 - 1),
    st.data(),
)
def test_digests_find_the_first_common_line_past_a_change(
    values: list[int], every_a: int, every_b: int, change: int, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(values) - 1))
    spoilt = [*values]
    spoilt[place] = (spoilt[place] + change) % 2**64
    a, same, other = logged(values, every_a), logged(values, every_b), logged(spoilt, every_b)
    assert compare(facts(a), facts(same)).first_steps == {}
    expected = min(step for step in {line["step"] for line in a} & {line["step"] for line in same} if step > place)
    assert compare(facts(a), facts(other)).first_steps == {"data": expected}


def test_figures_that_are_no_numbers() -> None:
    def steps(a: Line, b: Line, tolerance: float = 0.0) -> dict[str, int]:
        return compare(facts([{"step": 1, **a}]), facts([{"step": 1, **b}]), tolerance).first_steps  # type: ignore

    nan, inf = float("nan"), float("inf")
    assert steps({"loss/mlm": nan}, {"loss/mlm": nan}) == steps({"loss/mlm": inf}, {"loss/mlm": inf}) == {}
    assert steps({"loss/mlm": nan}, {"loss/mlm": 1.0}, 1e9) == {"loss": 1}
    assert steps({"loss/mlm": inf}, {"loss/mlm": -inf}, 1e9) == {"loss": 1}
    assert steps({"loss/mlm": 1.0}, {}, 1e9) == {"loss": 1}
    assert steps({"time/elapsed_s": 1.0}, {"time/elapsed_s": 2.0}) == {}
    assert steps({"samples": 1_000_000}, {"samples": 1_000_001}, 0.1) == {"data": 1}
