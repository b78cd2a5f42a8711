"""Damaged row groups that a run leaves out: which records, counted and named, for any number of workers."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed

from mlim_ray.config import FeedConfig, PretrainConfig
from mlim_ray.data import row_groups
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.row_groups import DamagedShardError
from mlim_ray.evaluation.held_out import load_held_out
from mlim_ray.training.batch import Batch
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.distributed import wait_for_all
from mlim_ray.training.left_out import LeftOutGroup, LeftOutLog, read_left_out
from mlim_ray.training.order import StreamOrder
from mlim_ray.training.stream import ShardReader, present, read_groups, resident_batches, stream_order
from mlim_ray.training.trainer import Trainer
from tests.builders import digests, figures, make_config, make_masking, make_model, timeless
from tests.prepared_sets import MAX_TOKENS, SIZE, damage, source_records, write_prepared

NUM_RECORDS, BATCH_SIZE = 1_400, 50
DAMAGED = (3, 17)
"""row groups of two shards"""
FEED = FeedConfig(num_lanes=6, window_groups=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return write_prepared(tmp_path_factory.mktemp("whole"), source_records(NUM_RECORDS))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    """The same set with damage."""
    prepared = write_prepared(tmp_path_factory.mktemp("damaged"), source_records(NUM_RECORDS))
    damage(prepared, *DAMAGED)
    assert len({prepared.row_group("train", group).path for group in DAMAGED}) == 2
    row_groups.open_shard.cache_clear()
    return prepared


def config_of(**train: Any) -> PretrainConfig:
    return make_config(train={"batch_size": BATCH_SIZE, "seed": 3} | train)


def order_of(prepared: PreparedSet) -> StreamOrder:
    return stream_order(prepared, config_of().train, FEED)


def streamed(prepared: PreparedSet, lanes: range, start: int, stop: int, log: LeftOutLog | None = None) -> list[Batch]:
    """The batches that a worker gets, read from the shards."""
    order = order_of(prepared)
    reader = ShardReader(prepared, order, make_masking(config_of())._replace(num_cells=4), lanes, skips_damaged=True)
    first, last = reader.chunk_of(start), reader.chunk_of(stop - 1) + 1
    rows, step_of_row = reader.read_chunks(range(first, last), start, stop)
    told = log.add if log is not None else lambda step, groups: None
    return [
        present(rows.take(np.flatnonzero(step_of_row == step)), step, order.rows_at(step, lanes).group, told)
        for step in range(start, stop)
    ]


def check_equal(one: list[Batch], other: list[Batch]) -> None:
    for a, b in zip(one, other, strict=True):
        for name, x, y in zip(Batch._fields, a, b, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=name)


def without(batches: list[Batch], prepared: PreparedSet, groups: tuple[int, ...]) -> list[Batch]:
    """The same batches without the records of these row groups."""
    keys = np.concatenate([prepared.read_group("train", group, ["key_hash"])["key_hash"] for group in groups])
    return [batch.take(np.flatnonzero(~np.isin(batch.key_hash_B, keys))) for batch in batches]


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_only_the_records_of_damaged_row_groups_are_missing(
    whole: PreparedSet, damaged: PreparedSet, num_workers: int
) -> None:
    order = order_of(whole)
    num_steps = 2 * order.epoch_steps
    expected = without(streamed(whole, range(order.num_lanes), 0, num_steps), whole, DAMAGED)
    assert sum(len(batch.key_hash_B) for batch in expected) == 2 * (NUM_RECORDS - 2 * 64)
    parts = [streamed(damaged, order.lanes_of(rank, num_workers), 0, num_steps) for rank in range(num_workers)]
    check_equal([Batch(*map(np.concatenate, zip(*each, strict=True))) for each in zip(*parts, strict=True)], expected)
    # Cut anywhere, as a resumed run does.
    check_equal(streamed(damaged, range(order.num_lanes), 13, num_steps), expected[13:])


def test_resident_batches_lack_the_same(whole: PreparedSet, damaged: PreparedSet, tmp_path: Path) -> None:
    order, masking = order_of(whole), make_masking(config_of())._replace(num_cells=4)
    records = read_groups(damaged, range(damaged.num_groups("train")), skips_damaged=True)
    lanes, num_steps = range(order.num_lanes), 2 * order.epoch_steps
    logs = [LeftOutLog(str(tmp_path / name), damaged, 0) for name in ("resident", "streamed")]
    resident = list(resident_batches(records, order, masking, lanes, 0, num_steps, logs[0].add))
    check_equal(resident, streamed(damaged, lanes, 0, num_steps, logs[1]))
    for log in logs:
        log.save(num_steps)
    assert read_left_out(str(tmp_path / "resident")) == read_left_out(str(tmp_path / "streamed")) != []


def test_a_damaged_row_group_is_an_error_unless_it_is_to_be_left_out(damaged: PreparedSet) -> None:
    order = order_of(damaged)
    reader = ShardReader(damaged, order, make_masking(config_of())._replace(num_cells=4), range(order.num_lanes))
    with pytest.raises(DamagedShardError, match=r"row group \d+: .*checksum.*mlim-ray verify"):
        reader.read_chunks(range(reader.chunk_of(order.epoch_steps)), 0, order.epoch_steps)
    with pytest.raises(DamagedShardError):
        read_groups(damaged, range(DAMAGED[0] + 1))


def test_each_row_group_is_named_once_by_the_first_step_that_lacks_it(damaged: PreparedSet, tmp_path: Path) -> None:
    order, run = order_of(damaged), str(tmp_path)
    lanes, num_steps = range(order.num_lanes), 3 * order.epoch_steps
    groups = [order.rows_at(step).group for step in range(num_steps)]
    first = {group: next(step for step in range(num_steps) if (groups[step] == group).any()) for group in DAMAGED}
    log = LeftOutLog(run, damaged, 0)
    streamed(damaged, lanes, 0, num_steps, log)
    log.save(min(first.values()))
    assert read_left_out(run) == [], "what was read ahead was not learned from yet"
    log.save(num_steps)
    named = read_left_out(run)
    places = {group: damaged.row_group("train", group) for group in DAMAGED}
    assert named == sorted(
        LeftOutGroup(first[group] + 1, place.shard.path, place.index, 64, named[0].problem)
        for group, place in places.items()
    )
    assert "checksum" in named[0].problem
    # A start from a checkpoint before the second was met meets it again; what is whole again is not named again.
    between = max(first.values())
    resumed = LeftOutLog(run, damaged, between)
    resumed.save(between)
    assert read_left_out(run) == named[:1]
    streamed(damaged, lanes, between, num_steps, resumed)
    resumed.save(num_steps)
    assert read_left_out(run) == named


def test_a_run_that_would_lack_more_than_a_tenth_stops(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path, source_records(NUM_RECORDS))
    for shard in prepared.manifest.splits["train"].shards[:1]:
        (Path(prepared.path) / shard.path).unlink()
    order, log = order_of(prepared), LeftOutLog(str(tmp_path), prepared, 0)
    streamed(prepared, range(order.num_lanes), 0, order.epoch_steps, log)
    with pytest.raises(ValueError, match=r"of 1,400 training records .* are damaged, more than 10%; .*damaged.jsonl"):
        log.save(order.epoch_steps)
    assert {entry.problem for entry in read_left_out(str(tmp_path))} == {"the shard is missing"}


def test_the_linear_probe_may_lack_training_records_and_no_score_a_held_out_one(damaged: PreparedSet) -> None:
    manifest = damaged.manifest
    split = manifest.splits["train"]
    first, rest = split.shards[:1], split.shards[1:]
    sizes = [sum(shard.num_records for shard in shards) for shards in (first, rest)]
    splits = {
        "train": split.model_copy(update={"shards": rest, "num_records": sizes[1]}),
        "val": split.model_copy(update={"shards": first, "num_records": sizes[0]}),
        "test": manifest.splits["test"],
    }
    both = PreparedSet(damaged.path, manifest.model_copy(update={"splits": splits}))
    probe = config_of().probe
    with pytest.raises(DamagedShardError, match=first[0].path):
        load_held_out(both, probe, 4, skips_damaged=True)
    near = probe.model_copy(update={"num_records": 64})
    with pytest.raises(DamagedShardError, match=rest[1].path):
        load_held_out(both, near, 4)
    labelled = load_held_out(both, near, 4, skips_damaged=True).labelled_train
    assert labelled is not None and len(labelled.labels) == sizes[1] - 64


NUM_STEPS, SAVED_AT = 40, 17


def learn(prepared: PreparedSet, rank: int, num_workers: int, run: Path, stop_step: int) -> list[dict[str, Any]]:
    """Train up to a step, from the newest checkpoint, and save; gives the lines of the metrics."""
    config = config_of(num_steps=NUM_STEPS, log_every_steps=5, checkpoint_every_steps=SAVED_AT)
    order, store = order_of(prepared), CheckpointStore(str(run / "checkpoints"))
    vocab_size = prepared.tokenizer().vocab_size
    model = make_model(image_size=SIZE, vocab_size=vocab_size, max_tokens=MAX_TOKENS)
    assert model.config.num_cells == 4
    trainer, checkpoint = Trainer(model, config, order), store.latest().checkpoint
    if checkpoint is not None:
        model.load_state_dict(checkpoint.weights)
        trainer.load_state(checkpoint.trainer_state)
    wait_for_all()
    log = LeftOutLog(str(run), prepared, trainer.step)
    lanes = order.lanes_of(rank, num_workers)
    batches = streamed(prepared, lanes, trainer.step, NUM_STEPS, log)
    lines: list[dict[str, Any]] = []

    def save() -> None:
        log.save(trainer.step)
        state = trainer.state()
        if rank == 0:
            store.save(trainer.step, model.state_dict(), state)
        wait_for_all()

    trainer.run(iter(batches), stop_step, lines.append, save)
    return timeless(lines)


def work(prepared: PreparedSet, rank: int, num_workers: int, folder: Path) -> None:
    """One of `num_workers` processes; they are stopped past their checkpoint and start again from it."""
    if num_workers > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meeting-{num_workers}", rank=rank, world_size=num_workers
        )
    run = folder / str(num_workers)
    lines = learn(prepared, rank, num_workers, run, SAVED_AT + 5)
    lines = [line for line in lines if line["step"] <= SAVED_AT] + learn(prepared, rank, num_workers, run, NUM_STEPS)
    if rank == 0:
        (run / "lines.json").write_text(json.dumps(lines))
    if num_workers > 1:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_losses_counts_and_names_are_the_same_for_any_number_of_workers(
    whole: PreparedSet, damaged: PreparedSet, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlim_ray.training.trainer", "mlim_ray.training.stream"])
    for num_workers in (1, 2, 3):
        workers = [
            context.Process(target=work, args=(damaged, rank, num_workers, tmp_path)) for rank in range(num_workers)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        assert [worker.exitcode for worker in workers] == [0] * num_workers
    one, *others = (json.loads((tmp_path / str(n) / "lines.json").read_text()) for n in (1, 2, 3))
    for lines in others:
        for expected, line in zip(one, lines, strict=True):
            assert figures(line) == pytest.approx(figures(expected), rel=1e-5)
            assert digests(line) == digests(expected)
    named = [(tmp_path / str(n) / "damaged.jsonl").read_bytes() for n in (1, 2, 3)]
    assert named[0] == named[1] == named[2] and len(named[0].splitlines()) == 2

    order = order_of(whole)
    missing = np.cumsum([np.isin(order.rows_at(step).group, DAMAGED).sum() for step in range(NUM_STEPS)])
    assert [line["num_left_out"] for line in one] == [missing[line["step"] - 1] for line in one]
    # The same as if those records had never been there.
    batches = without(streamed(whole, range(order.num_lanes), 0, NUM_STEPS), whole, DAMAGED)
    config = config_of(num_steps=NUM_STEPS, log_every_steps=5)
    model = make_model(image_size=SIZE, vocab_size=whole.tokenizer().vocab_size, max_tokens=MAX_TOKENS)
    direct: list[dict[str, Any]] = []
    Trainer(model, config, order).run(iter(batches), NUM_STEPS, direct.append)
    assert timeless(direct) == one
