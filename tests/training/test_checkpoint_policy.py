"""Which checkpoints are kept, and why."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mlim_ray.config import PretrainConfig, SearchRunConfig, TrainConfig
from mlim_ray.config.compare import CompareRunConfig
from mlim_ray.config.in_run import InRunConfig
from mlim_ray.config.pairs_run import PairsRunConfig
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.checkpoint_manifest import CheckpointEntry
from mlim_ray.training.checkpoint_policy import CheckpointPolicy
from mlim_ray.training.metrics import MetricsWriter
from tests.training.checkpoints import assert_nothing_else, save


def test_the_best_is_kept_beside_the_last_ones_and_the_manifest_says_why(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path), CheckpointPolicy(num_kept=2, best_by="loss/total", every_steps=(40,)))
    scores = {10: 5.0, 20: 3.0, 30: 4.0, 40: 3.5, 50: 3.0, 60: 4.5, 70: 2.0, 80: 2.5, 90: 9.0, 100: None}
    kept = {}
    for step, score in scores.items():
        save(store, step, score)
        kept[step] = {entry.step: entry.kept for entry in store.entries()}
        assert_nothing_else(store)
    assert kept[10] == {10: ("last", "best")}
    assert kept[30] == {20: ("last", "best"), 30: ("last",)}
    # Of equal scores the earlier one stays; one without a score is never the best.
    assert kept[60] == {20: ("best",), 40: ("every",), 50: ("last",), 60: ("last",)}
    assert kept[100] == {40: ("every",), 70: ("best",), 80: ("every",), 90: ("last",), 100: ("last",)}
    assert {entry.step: entry.score for entry in store.entries()} == {step: scores[step] for step in kept[100]}


STEPS = st.dictionaries(
    st.integers(0, 60), st.one_of(st.none(), st.floats(0, 3).map(lambda x: round(x, 1))), min_size=1
)


@given(STEPS, st.integers(1, 5), st.integers(0, 10), st.booleans())
def test_what_is_kept_is_what_the_policy_says(
    scores: dict[int, float | None], num_kept: int, every_steps: int, by_score: bool
) -> None:
    policy = CheckpointPolicy(num_kept, "loss/total" if by_score else None, (every_steps,) if every_steps else ())
    entries = [CheckpointEntry(step=step, score=score, files={}) for step, score in scores.items()]
    chosen = {entry.step: entry for entry in policy.choose(entries)}
    assert list(chosen) == sorted(chosen)
    last = sorted(scores)[-num_kept:]
    known = [(score, step) for step, score in scores.items() if score is not None]
    for step, score in scores.items():
        expected = {
            "last": step in last,
            "best": by_score and bool(known) and (score, step) == min(known),
            "every": every_steps > 0 and step % every_steps == 0,
        }
        assert (step in chosen) == any(expected.values())
        if step in chosen:
            assert chosen[step].kept == tuple(name for name, is_so in expected.items() if is_so)
            assert chosen[step].score == score


def with_train(**train: Any) -> PretrainConfig:
    return PretrainConfig(train=TrainConfig(**train))


def test_the_config_decides() -> None:
    config = with_train(num_checkpoints_kept=3, keep_best="loss/mlm/text_heavy", keep_every_steps=1_000)
    assert CheckpointPolicy.of(config) == CheckpointPolicy(3, "loss/mlm/text_heavy", (1_000,))
    assert CheckpointPolicy.of(PretrainConfig()) == CheckpointPolicy()


def test_what_is_measured_while_training_is_kept_too() -> None:
    measured = with_train(keep_every_steps=1_000).model_copy(update={"evaluate": InRunConfig(every_steps=1_500)})
    entries = [CheckpointEntry(step=step, score=None, files={}) for step in range(500, 4_001, 500)]
    kept = [entry.step for entry in CheckpointPolicy.of(measured).choose(entries)]
    assert kept == [1_000, 1_500, 2_000, 3_000, 3_500, 4_000]


def test_only_what_is_written_can_be_measured_and_only_a_single_run_is() -> None:
    with pytest.raises(ValidationError, match="evaluate.every_steps is 700, expected 0 or a multiple of .*500"):
        PretrainConfig(evaluate=InRunConfig(every_steps=700))
    with pytest.raises(ValidationError, match="evaluate.tasks is retrieval and evaluate.every_steps is 0; say how"):
        PretrainConfig(evaluate=InRunConfig(tasks=("retrieval",)))
    for experiment in (SearchRunConfig, CompareRunConfig, PairsRunConfig):
        with pytest.raises(ValidationError, match="evaluate.every_steps is 500, expected 0: only .*pretrain.py"):
            experiment(evaluate=InRunConfig(every_steps=500))


def test_a_loss_that_the_run_does_not_log_is_refused_naming_those_it_does() -> None:
    with pytest.raises(ValueError, match="train.keep_best: given 'loss/all', expected none or a loss .*loss/total, "):
        CheckpointPolicy.of(with_train(keep_best="loss/all"))


def test_only_what_is_written_can_be_kept() -> None:
    with pytest.raises(ValidationError, match="keep_every_steps is 700, expected 0 or a multiple of .*500"):
        with_train(keep_every_steps=700)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_a_loss_that_is_no_number_is_no_score(value: float | None) -> None:
    policy = CheckpointPolicy(best_by="loss/mlm")
    line = {"step": 3, "loss/total": 1.0} | ({} if value is None else {"loss/mlm": value})
    assert policy.score_of(line) is None and policy.score_of(None) is None
    assert policy.score_of(line | {"loss/mlm": 2}) == 2.0
    assert CheckpointPolicy().score_of(line) is None


def test_the_last_line_at_or_before_a_step_gives_the_score_after_a_resume_too(tmp_path: Path) -> None:
    policy = CheckpointPolicy(best_by="loss/total")
    first = MetricsWriter(str(tmp_path), 0)
    assert policy.score_of(first.last_line) is None
    for step in (4, 8):
        first.write({"step": step, "loss/total": float(step)})
        assert policy.score_of(first.last_line) == step
    assert policy.score_of(MetricsWriter(str(tmp_path), 8).last_line) == 8
    assert policy.score_of(MetricsWriter(str(tmp_path), 5).last_line) == 4
    assert MetricsWriter(str(tmp_path), 3).last_line is None
