"""Small pictures in the first steps: which steps have them follows from their number, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlim_ray.config import FeedConfig, PretrainConfig, ResolutionConfig, TrainConfig
from mlim_ray.config.recipes import with_recipe
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.shrinking import shrink
from mlim_ray.masking import draw_masks
from mlim_ray.model import SIZES, MlimConfig
from mlim_ray.training.batch import Batch, Masking
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.resolution import Stage, stages_of
from mlim_ray.training.resolve import resolve_size
from mlim_ray.training.stream import ShardReader, read_groups, resident_batches, stream_order
from mlim_ray.training.throughput import contents_of
from mlim_ray.training.trainer import Trainer
from tests.builders import make_config, make_masking, make_model, make_order, make_records, timeless
from tests.model.parts import make_inputs
from tests.prepared_sets import source_records, write_prepared

NUM_STEPS = 11
# Four steps of 2 x 2 cells, four of 3 x 3, three of all 4 x 4.
GROWING = {"start_ratio": 0.5, "small_steps_ratio": 8 / 11, "num_stages": 2}


def stages(num_steps: int, side: int, **resolution: Any) -> list[tuple[int, int, int]]:
    shape = MlimConfig(image_size=8 * side)
    return [tuple(stage) for stage in stages_of(ResolutionConfig(**resolution), num_steps, shape)]


def test_mlim_has_pictures_of_one_size() -> None:
    assert stages(100, 4) == []
    config = make_config()
    assert make_masking(config) == Masking(config.masking, 0, 16)


def test_stages_grow_by_whole_cells_and_take_equal_shares() -> None:
    assert stages(100, 4, start_ratio=0.5) == [(100, 4, 16)]
    assert stages(100, 7, start_ratio=0.57, small_steps_ratio=0.9) == [(90, 16, 32)]
    assert stages(100, 7, start_ratio=0.57, num_stages=3) == [(33, 16, 32), (67, 25, 40), (100, 36, 48)]
    # There are only two sides between a half and all of four cells.
    assert stages(100, 4, start_ratio=0.5, num_stages=4) == [(50, 4, 16), (100, 9, 24)]
    # A share nearer to all cells than to one fewer is all of them.
    assert stages(100, 4, start_ratio=0.9) == []


@given(st.integers(1, 5_000), st.integers(1, 14), st.floats(0.04, 1.0), st.floats(0.0, 1.0), st.integers(1, 64))
def test_stages_only_grow_and_end_where_they_should(
    num_steps: int, side: int, start_ratio: float, small_steps_ratio: float, num_stages: int
) -> None:
    ratio = max(start_ratio, 0.5 / side)
    found = stages(num_steps, side, start_ratio=ratio, small_steps_ratio=small_steps_ratio, num_stages=num_stages)
    stops, cells = [stage[0] for stage in found], [stage[1] for stage in found]
    assert stops == sorted(stops) and cells == sorted(set(cells)) and all(count < side**2 for count in cells)
    if found:
        assert abs(cells[0] ** 0.5 - ratio * side) <= 0.5
        assert abs(stops[-1] - num_steps * small_steps_ratio) <= 0.5
    masking = Masking(make_config().masking, 0, side**2, stages=tuple(Stage(*stage) for stage in found))
    runs = masking.runs(0, num_steps)
    assert [step for run in runs for step in run] == list(range(num_steps))
    for run in runs:
        assert {masking.at(step).num_cells for step in (run.start, run.stop - 1)} == {masking.at(run.start).num_cells}
    assert len({masking.at(run.start).num_cells for run in runs}) == len(runs)


def test_a_share_without_a_whole_cell_is_refused_with_what_fits() -> None:
    config = PretrainConfig.model_validate({"model": {"size": "tiny"}, "resolution": {"start_ratio": 0.1}})
    with pytest.raises(ValueError, match=r"^--resolution.start-ratio 0.1 leaves no whole cell.* such as 0.25, 0.5"):
        resolve_size(config, has_gpu=False)


def test_fastmims_pictures_are_what_they_were_there() -> None:
    resolution = with_recipe(PretrainConfig(), "fastmim_style").resolution
    pixels = {}
    for size, shape in SIZES.items():
        config = MlimConfig(
            image_size=shape.image_size,
            decoder_channels=shape.decoder_channels,
            embedder_channels=shape.embedder_channels,
        )
        pixels[size] = [stage.image_size for stage in stages_of(resolution, 100, config)]
    assert pixels == {"tiny": [16], "small": [64], "base": [128], "large": [224]}


def batches_from(config: PretrainConfig, start_step: int, *, num_workers: int = 1, rank: int = 0) -> Iterator[Batch]:
    order = make_order(config, 50)
    lanes = order.lanes_of(rank, num_workers)
    return resident_batches(make_records(50), order, make_masking(config), lanes, start_step, NUM_STEPS)


def test_batches_have_shrunk_pictures_and_masks_drawn_for_them() -> None:
    config = make_config(train={"num_steps": NUM_STEPS}, resolution=GROWING)
    small, whole = list(batches_from(config, 0)), list(batches_from(make_config(train={"num_steps": NUM_STEPS}), 0))
    assert [batch.pixels_BHW3.shape[1] for batch in small] == [8] * 4 + [12] * 4 + [16] * 3
    words_of = dict(zip(make_records(50).key_hash_R, make_records(50).word_of_token_RT, strict=True))
    for one, other in zip(small, whole, strict=True):
        for name in ("key_hash_B", "epoch_B", "token_ids_BT", "num_tokens_B", "mode_B", "token_hidden_BT"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
        np.testing.assert_array_equal(one.pixels_BHW3, shrink(other.pixels_BHW3, one.pixels_BHW3.shape[1]))
        masks = draw_masks(
            config.masking,
            seed=0,
            epoch_B=one.epoch_B,
            key_hash_B=one.key_hash_B,
            num_cells=(one.pixels_BHW3.shape[1] // 4) ** 2,
            word_of_token_BT=np.stack([words_of[key] for key in one.key_hash_B]),
        )
        np.testing.assert_array_equal(one.cell_hidden_BN, masks.cell_hidden_BN)
        assert contents_of(one).num_cells == one.cell_hidden_BN.size


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return write_prepared(tmp_path_factory.mktemp("train"), source_records(300))


@pytest.mark.parametrize("num_workers", [1, 3])
def test_both_feeds_give_the_same_across_stages(prepared: PreparedSet, num_workers: int) -> None:
    order = stream_order(prepared, TrainConfig(batch_size=20, seed=3), FeedConfig(num_lanes=6, window_groups=1))
    masking = Masking(make_config().masking, 3, 16, stages=(Stage(4, 4, 4), Stage(17, 9, 6)))
    # Both changes lie within a chunk.
    assert order.chunk_steps > 4 and 17 % order.epoch_steps % order.chunk_steps
    records = read_groups(prepared, range(len(prepared.row_groups("train"))))
    for start, stop in ((0, 20), (3, 5), (16, 18)):
        resident = list(resident_batches(records, order, masking, range(order.num_lanes), start, stop))
        by_rank = []
        for rank in range(num_workers):
            reader, streamed = ShardReader(prepared, order, masking, order.lanes_of(rank, num_workers)), []
            for run in masking.runs(start, stop):
                chunks = range(reader.chunk_of(run.start), reader.chunk_of(run.stop - 1) + 1)
                rows, step_of_row = reader.read_chunks(chunks, run.start, run.stop)
                streamed += [rows.take(np.flatnonzero(step_of_row == step)) for step in run]
            by_rank.append(streamed)
        joined = [Batch(*map(np.concatenate, zip(*parts, strict=True))) for parts in zip(*by_rank, strict=True)]
        for one, other in zip(joined, resident, strict=True):
            for name, x, y in zip(Batch._fields, one, other, strict=True):
                assert x.dtype == y.dtype, name
                np.testing.assert_array_equal(x, y, err_msg=name)


@pytest.mark.parametrize("killed_at", [3, 4, 6, 8])
def test_a_resumed_run_repeats_the_uninterrupted_one_across_stages(tmp_path: Path, killed_at: int) -> None:
    config = make_config(
        train={"num_steps": NUM_STEPS, "log_every_steps": 3}, resolution=GROWING, recon={"kind": "features"}
    )
    order = make_order(config, 50)
    uninterrupted, whole = Trainer(make_model(), config, order), []
    uninterrupted.run(batches_from(config, 0), NUM_STEPS, whole.append)

    store, first, before = CheckpointStore(str(tmp_path)), Trainer(make_model(), config, order), []
    first.run(batches_from(config, 0), killed_at, before.append)
    store.save(first.step, first.model.state_dict(), first.state())
    checkpoint = store.latest().checkpoint
    assert checkpoint is not None
    second, after = Trainer(make_model(1), config, order), []
    second.model.load_state_dict(checkpoint.weights)
    second.load_state(checkpoint.trainer_state)
    second.run(batches_from(config, second.step), NUM_STEPS, after.append)
    assert timeless(before + after) == timeless(whole)
    for name, weight in uninterrupted.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], weight), name


def test_a_run_of_small_pictures_alone_learns_for_the_full_ones() -> None:
    config = make_config(
        train={"num_steps": 60, "learning_rate": 3e-3, "log_every_steps": 60}, resolution={"start_ratio": 0.5}
    )
    order, untrained = make_order(config, 50), make_model()
    trainer = Trainer(make_model(), config, order)
    masking = make_masking(config)
    trainer.run(resident_batches(make_records(50), order, masking, range(6), 0, 60), 60, [].append)
    inputs = make_inputs(50)
    errors = []
    for model in (untrained, trainer.model):
        with torch.inference_mode():
            errors.append(float((model.eval()(*inputs[:6])[1] - inputs.pixels_B3HW).square().mean()))
    assert errors[1] < 0.5 * errors[0]
    moved = (trainer.model.cell_positions - untrained.cell_positions).abs().amax(1)
    assert (moved > 1e-3).all()
