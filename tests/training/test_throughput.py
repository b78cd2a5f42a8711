"""Figures of speed and memory: counted from the batches, against a peak that is measured or given."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from mlim_ray.model.flops import step_flops
from mlim_ray.training import throughput as module
from mlim_ray.training.batch import make_batch
from mlim_ray.training.matmul_peak import matmul_peak
from mlim_ray.training.stream import resident_batches
from mlim_ray.training.throughput import Throughput, contents_of, peak_memory
from mlim_ray.training.trainer import Trainer
from tests.builders import NUM_CELLS, make_config, make_masking, make_model, make_order, make_records

CPU = torch.device("cpu")


def test_contents_are_those_of_the_batch() -> None:
    batch = make_batch(make_records(20), 3, make_masking(make_config()))
    contents = contents_of(batch)
    assert contents.num_cells == 20 * NUM_CELLS
    assert contents.num_visible_cells == (~batch.cell_hidden_BN).sum()
    assert contents.num_hidden_tokens == batch.token_hidden_BT.sum()
    lengths = [int(length) for length in batch.num_tokens_B]
    assert (contents.num_tokens, contents.num_pairs) == (
        sum(lengths),
        sum((NUM_CELLS + length) ** 2 for length in lengths),
    )
    assert set(contents_of(batch.take(slice(0, 0)))) == {0}


def test_figures_are_per_second_and_over_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    model, config = make_model(), make_config(train={"peak_flops": 2e9})
    batch = make_batch(make_records(20), 3, make_masking(config))
    figures = Throughput(model.config, config.train, CPU)
    figures.add(batch)
    now = 104.0
    figures.restart()
    for _ in range(2):
        figures.add(batch)
        now += 0.25
        figures.add(batch)
    found = figures.read_and_reset()
    assert found["time/tokens_per_s"] == pytest.approx(4 * (20 * NUM_CELLS + batch.num_tokens_B.sum()) / 0.5)
    assert found["time/mfu_ratio"] == pytest.approx(4 * step_flops(model.config, contents_of(batch)) / 0.5 / 2e9)
    assert found["memory/peak_gib"] > 0.05
    now += 1.0
    assert figures.read_and_reset()["time/mfu_ratio"] == 0.0


def test_every_logged_line_has_the_figures() -> None:
    config = make_config(train={"num_steps": 5, "log_every_steps": 2, "micro_batch_size": 5})
    order, lines = make_order(config, 50), list[dict[str, Any]]()
    trainer = Trainer(make_model(), config, order)
    batches = resident_batches(make_records(50), order, make_masking(config), range(order.num_lanes), 0, 5)
    trainer.run(batches, 5, lines.append)
    assert [line["step"] for line in lines] == [2, 4, 5]
    for line in lines:
        assert line["time/tokens_per_s"] > 0 and 0 < line["time/mfu_ratio"] < 1 and line["memory/peak_gib"] > 0


def test_memory_is_the_highest_that_the_process_held() -> None:
    before = peak_memory(CPU)
    block = np.ones(before + 2**26, np.uint8)
    held = peak_memory(CPU)
    assert held >= len(block)
    del block
    assert peak_memory(CPU) == held


def test_the_peak_is_a_rate_that_is_measured_once_and_draws_no_random_number() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    peak = matmul_peak(CPU, torch.float32, 0.01)
    assert math.isfinite(peak) and 1e8 < peak < 1e15
    assert torch.equal(torch.get_rng_state(), before)
    assert matmul_peak(CPU, torch.float32, 0.01) == peak
