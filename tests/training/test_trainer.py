"""The loop: it learns, logs what it learned from, and continues bit for bit (contracts C1 and C3)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlim_ray.config import PretrainConfig
from mlim_ray.data.records import Records
from mlim_ray.masking import mode_names
from mlim_ray.training.batch import Batch, make_batch
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.order import StreamOrder
from mlim_ray.training.stream import resident_batches
from mlim_ray.training.tensors import to_tensors
from mlim_ray.training.trainer import Trainer
from tests.builders import make_config, make_masking, make_model, make_order, make_records, timeless

Line = dict[str, Any]


def batches_from(records: Records, config: PretrainConfig, order: StreamOrder, start_step: int) -> Iterator[Batch]:
    lanes = range(order.num_lanes)
    return resident_batches(records, order, make_masking(config), lanes, start_step, config.train.num_steps)


def test_one_batch_can_be_learned_by_heart() -> None:
    config = make_config(train={"num_steps": 250, "learning_rate": 5e-3, "warmup_ratio": 0.02, "log_every_steps": 1})
    trainer = Trainer(make_model(), config, make_order(config, 16))
    batch = make_batch(make_records(16), 0, make_masking(config))
    lines: list[Line] = []
    trainer.run(itertools.repeat(batch), 250, lines.append)
    assert lines[0]["loss/mlm"] > 3.0
    assert lines[-1]["loss/mlm"] < 0.1
    assert lines[-1]["loss/recon"] < lines[0]["loss/recon"] / 10


@pytest.mark.parametrize("target", ["whole", "masked"])
def test_a_logged_line_is_what_a_direct_computation_gives(target: str) -> None:
    config = make_config(
        train={"num_steps": 5, "log_every_steps": 3, "learning_rate": 1e-30},
        mlm={"weight": 0.7},
        recon={"weight": 3.0, "target": target},
    )
    records, order, model = make_records(50), make_order(make_config(), 50), make_model()
    lines: list[Line] = []
    Trainer(model, config, order).run(batches_from(records, config, order, 0), 5, lines.append)
    assert [line["step"] for line in lines] == [3, 5]
    # Four batches make an epoch of 50 records, so the fourth holds two and the fifth is of the next epoch.
    assert [line["samples"] for line in lines] == [48, 66]
    assert [line["epoch"] for line in lines] == [48 / 50, 66 / 50]

    batches = list(batches_from(records, config, order, 0))
    for line, interval in zip(lines, (batches[:3], batches[3:]), strict=True):
        sums: dict[str, list[float]] = {}
        for batch in interval:
            inputs = to_tensors(batch, torch.device("cpu"))
            with torch.inference_mode():
                logits, painted = model(*inputs[:5])
            nll = -logits.log_softmax(1)[torch.arange(len(logits)), inputs.token_ids_BT[inputs.token_hidden_BT]]
            error = (painted - inputs.pixels_B3HW).square().sum(1).double().numpy()
            cells = batch.cell_hidden_BN.reshape(-1, 4, 4).repeat(4, 1).repeat(4, 2)
            records_of_pieces = np.nonzero(inputs.token_hidden_BT.numpy())[0]
            for record, mode in enumerate(batch.mode_B):
                counted = error[record] if target == "whole" else error[record][cells[record]]
                for name, values in (
                    ("mlm", nll[records_of_pieces == record].double().numpy()),
                    ("recon", counted),
                ):
                    for key in (f"loss/{name}", f"loss/{name}/{mode_names(config.masking)[mode]}"):
                        sums.setdefault(key, []).extend(values)
        expected = {key: np.mean(values) for key, values in sums.items() if values}
        assert {key: line[key] for key in line if key.startswith("loss/") and key != "loss/total"} == pytest.approx(
            expected, rel=1e-5
        )
        assert line["loss/total"] == pytest.approx(0.7 * line["loss/mlm"] + 3.0 * line["loss/recon"])


@pytest.mark.parametrize("dropout_ratio", [0.0, 0.1])
@pytest.mark.parametrize("killed_at", [4, 5, 7])
def test_a_resumed_run_repeats_the_uninterrupted_one_bit_for_bit(
    tmp_path: Path, killed_at: int, dropout_ratio: float
) -> None:
    # Lines cover four steps: the checkpoints at 5 and 7 lie within one. An epoch ends after step 4.
    config = make_config(train={"num_steps": 11, "log_every_steps": 4}, model={"dropout_ratio": dropout_ratio})
    records, order = make_records(50), make_order(config, 50)

    def new_trainer(seed: int) -> Trainer:
        return Trainer(make_model(seed, dropout_ratio=dropout_ratio), config, order)

    uninterrupted, whole = new_trainer(0), []
    uninterrupted.run(batches_from(records, config, order, 0), 11, whole.append)

    store, first = CheckpointStore(str(tmp_path)), new_trainer(0)
    before: list[Line] = []
    batches = batches_from(records, config, order, 0)
    first.run(batches, killed_at, before.append)
    store.save(first.step, first.model.state_dict(), first.state())
    first.run(batches, killed_at + 2, [].append)

    checkpoint = store.latest().checkpoint
    assert checkpoint is not None
    second, after = new_trainer(1), []
    second.model.load_state_dict(checkpoint.weights)
    second.load_state(checkpoint.trainer_state)
    assert second.step == killed_at
    second.run(batches_from(records, config, order, second.step), 11, after.append)
    assert timeless(before + after) == timeless(whole)
    for name, weight in uninterrupted.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], weight), name


def test_saving_does_not_change_what_is_learned() -> None:
    config = make_config(train={"num_steps": 6, "log_every_steps": 4, "checkpoint_every_steps": 3})
    records, order = make_records(50), make_order(config, 50)
    results = []
    for saves in (True, False):
        trainer, lines, saved = Trainer(make_model(), config, order), [], []
        save = (lambda t=trainer, s=saved: s.append(t.state()["step"])) if saves else None
        trainer.run(batches_from(records, config, order, 0), 6, lines.append, save)
        assert saved == ([3, 6] if saves else [])
        results.append(timeless(lines))
    assert results[0] == results[1]
    assert [line["step"] for line in results[0]] == [4, 6]


def test_gradients_are_clipped_and_the_norm_before_is_logged() -> None:
    records = make_records(16)
    steps = {}
    for limit in (1e-3, 1e9):
        config = make_config(train={"num_steps": 1, "max_gradient_norm": limit})
        model, lines = make_model(), []
        Trainer(model, config, make_order(config, 16)).run(
            iter([make_batch(records, 0, make_masking(config))]), 1, lines.append
        )
        norm = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm().item()
        steps[limit] = (lines[0]["gradient_norm"], norm)
    assert steps[1e-3][0] == steps[1e9][0] == pytest.approx(steps[1e9][1], rel=1e-5)
    assert steps[1e-3][1] == pytest.approx(1e-3, rel=1e-3)


def test_the_weights_of_the_losses_weigh_them() -> None:
    def gradients(mlm: float, recon: float) -> torch.Tensor:
        config = make_config(
            train={"num_steps": 1, "max_gradient_norm": 1e9}, mlm={"weight": mlm}, recon={"weight": recon}
        )
        model = make_model()
        batch = make_batch(make_records(16), 0, make_masking(config))
        Trainer(model, config, make_order(config, 16)).run(iter([batch]), 1, [].append)
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    expected = 0.5 * gradients(1.0, 0.0) + 4.0 * gradients(0.0, 1.0)
    torch.testing.assert_close(gradients(0.5, 4.0), expected, rtol=1e-4, atol=1e-6)


def test_bfloat16_follows_float32() -> None:
    finals = {}
    for precision in ("float32", "bfloat16"):
        config = make_config(train={"num_steps": 20, "log_every_steps": 20, "precision": precision})
        trainer, lines = Trainer(make_model(), config, make_order(config, 50)), []
        trainer.run(batches_from(make_records(50), config, trainer.order, 0), 20, lines.append)
        assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
        finals[precision] = lines[0]["loss/total"]
    assert finals["bfloat16"] != finals["float32"]
    assert finals["bfloat16"] == pytest.approx(finals["float32"], rel=0.02)


def test_a_feed_that_ends_early_is_an_error() -> None:
    config = make_config(train={"num_steps": 3})
    trainer = Trainer(make_model(), config, make_order(config, 16))
    batch = make_batch(make_records(16), 0, make_masking(config))
    with pytest.raises(RuntimeError, match="the feed ended before step 1 of 3"):
        trainer.run(iter([batch]), 3, [].append)
