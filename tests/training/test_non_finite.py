"""NaN and infinity: the batch is kept and can be looked at again, and no weight ever learns from it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlim_ray.training.batch import Batch, make_batch
from mlim_ray.training.non_finite import MAX_CAPTURED, MAX_SKIPPED_IN_A_ROW, NonFiniteError
from mlim_ray.training.replay import replay
from mlim_ray.training.trainer import Trainer
from tests.builders import make_config, make_masking, make_model, make_order, make_records

BAD_STEP, BAD_RECORD = 3, 5


def make_trainer(run: Path, **train: Any) -> Trainer:
    config = make_config(train={"num_steps": 12, "log_every_steps": 1} | train)
    return Trainer(make_model(), config, make_order(config, 64), str(run))


def batches(trainer: Trainer) -> Iterator[Batch]:
    records = make_records(64)
    return (make_batch(records, epoch, make_masking(trainer.config)).take(slice(0, 16)) for epoch in itertools.count())


def poison(trainer: Trainer, is_bad: Callable[[int], bool]) -> None:
    """One record's picture comes out of the decoder as NaN at some steps."""

    def hook(module: torch.nn.Module, inputs: Any, painted_B3HW: torch.Tensor) -> torch.Tensor:
        factor_B = torch.ones(len(painted_B3HW))
        if is_bad(trainer.step):
            factor_B[BAD_RECORD] = float("nan")
        return painted_B3HW * factor_B[:, None, None, None]

    trainer.model.image_decoder.register_forward_hook(hook)


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([weight.flatten().clone() for weight in trainer.model.state_dict().values()])


def test_stop_names_the_step_the_worker_and_the_record_and_learns_nothing_from_it(tmp_path: Path) -> None:
    trainer, lines = make_trainer(tmp_path), []
    poison(trainer, lambda step: step == BAD_STEP)
    given = batches(trainer)
    trainer.run(given, BAD_STEP, lines.append)
    before = weights(trainer)
    bad = next(given)
    with pytest.raises(NonFiniteError) as error:
        trainer.run(iter([bad]), 12, lines.append)
    for part in (f"step {BAD_STEP}", "worker 0", "1 of 16 records", f"{int(bad.key_hash_B[BAD_RECORD]):016x}"):
        assert part in str(error.value)
    assert torch.equal(weights(trainer), before)
    assert all(np.isfinite(value) for line in lines for value in line.values() if not isinstance(value, str))


def test_the_kept_batch_gives_its_losses_again(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    poison(trainer, lambda step: step == BAD_STEP)
    given = list(itertools.islice(batches(trainer), BAD_STEP + 1))
    with pytest.raises(NonFiniteError) as error:
        trainer.run(iter(given), 12, [].append)
    (place,) = (tmp_path / "non_finite").iterdir()
    assert str(place) in str(error.value)
    found = replay(str(place))
    assert found.step == BAD_STEP
    assert [record.key for record in found.records] == [f"{key:016x}" for key in given[BAD_STEP].key_hash_B.tolist()]
    # The hook is not part of what was kept, so now the losses are those of the plain model.
    assert np.isfinite(found.gradient_norm) and not found.non_finite

    with pytest.raises(ValueError, match="holds no kept batch"):
        replay(str(tmp_path))


def test_weights_that_overflow_are_found_again_by_a_replay(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    with torch.no_grad():
        trainer.model.word_embeddings.weight[20] = float("inf")
    with pytest.raises(NonFiniteError):
        trainer.run(batches(trainer), 12, [].append)
    (place,) = (tmp_path / "non_finite").iterdir()
    found = replay(str(place))
    assert not np.isfinite(found.gradient_norm) and 0 < len(found.non_finite) <= 16


def test_skip_goes_on_as_if_the_step_had_not_been(tmp_path: Path) -> None:
    """The weights after a skipped step are those of a run whose update there is left out by hand."""
    skipping, lines = make_trainer(tmp_path, on_non_finite="skip"), []
    poison(skipping, lambda step: step == BAD_STEP)
    skipping.run(batches(skipping), 12, lines.append)

    by_hand = make_trainer(tmp_path / "other")
    given = list(itertools.islice(batches(by_hand), 12))
    by_hand.run(iter(given[:BAD_STEP]), BAD_STEP, [].append)
    by_hand.step += 1
    by_hand.run(iter(given[BAD_STEP + 1 :]), 12, [].append)
    assert torch.equal(weights(skipping), weights(by_hand))
    assert [line["num_skipped_steps"] for line in lines] == [0] * BAD_STEP + [1] * (12 - BAD_STEP)
    assert lines[BAD_STEP]["loss/total"] == 0.0 and np.isnan(lines[BAD_STEP]["gradient_norm"])


def test_a_run_that_skips_for_ever_stops(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, on_non_finite="skip", num_steps=100)
    poison(trainer, lambda step: step >= BAD_STEP)
    with pytest.raises(NonFiniteError, match=f"{MAX_SKIPPED_IN_A_ROW + 1} steps in a row"):
        trainer.run(batches(trainer), 100, [].append)
    assert trainer.step == BAD_STEP + MAX_SKIPPED_IN_A_ROW
    assert len(list((tmp_path / "non_finite").iterdir())) == MAX_CAPTURED


def test_weights_that_are_no_numbers_are_never_saved(tmp_path: Path) -> None:
    # The gradient is finite; the step that it makes is not.
    trainer = make_trainer(tmp_path, learning_rate=1e39, warmup_ratio=0.0, checkpoint_every_steps=1)
    saved = []
    with pytest.raises(NonFiniteError, match="no checkpoint was written"):
        trainer.run(batches(trainer), 12, [].append, lambda: saved.append(trainer.step))
    assert saved == []
