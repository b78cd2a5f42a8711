"""A checkpoint is what it was when it was submitted, however training goes on; nothing that fails is kept quiet."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlim_ray.data import storage
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.checkpoint_writer import CheckpointWriter
from mlim_ray.training.trainer import Trainer
from tests.builders import make_config, make_model, make_order, make_records
from tests.training.checkpoints import assert_is_step, assert_nothing_else, state_at, weights_at
from tests.training.test_trainer import batches_from


class Gated(CheckpointStore):
    """Saves only while its gate is open, and remembers what it was given and in which order things happened."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.gate = threading.Event()
        self.written = threading.Semaphore(0)
        self.events: list[str] = []
        self.places: list[list[int]] = []

    def save(
        self, step: int, weights: dict[str, Tensor], trainer_state: dict[str, Any], score: float | None = None
    ) -> None:
        self.events.append(f"save {step} starts")
        assert self.gate.wait(60)
        self.places.append([tensor.data_ptr() for tensor in weights.values()])
        super().save(step, weights, trainer_state, score)
        self.events.append(f"save {step} ends")
        self.written.release()


SHAPES = st.sampled_from([(), (0,), (1,), (3, 2), (2, 1, 4)])
DTYPES = (
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int16,
    torch.uint8,
    torch.bool,
)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Of any kind, some of them views with gaps."""
    shape = draw(SHAPES)
    values = torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    tensor = values.to(draw(st.sampled_from(DTYPES)))
    return tensor.repeat_interleave(2, 0)[::2].T if tensor.ndim == 2 and draw(st.booleans()) else tensor


LEAVES = st.one_of(tensors(), st.integers(), st.floats(allow_nan=False), st.booleans(), st.none(), st.text(max_size=3))
STATES = st.dictionaries(
    st.text("abc", max_size=2),
    st.recursive(
        LEAVES,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=2).map(tuple),
            st.dictionaries(st.one_of(st.integers(0, 5), st.text("xy", max_size=2)), inner, max_size=3),
        ),
        max_leaves=6,
    ),
    max_size=4,
)
WEIGHTS = st.dictionaries(st.text("vw", min_size=1, max_size=3), tensors(), max_size=3)


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(item)


def spoil(value: Any) -> None:
    """Change everything in place that can be changed."""
    if isinstance(value, Tensor):
        value.logical_not_() if value.dtype == torch.bool else value.add_(1)
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            spoil(item)
        if not isinstance(value, tuple):
            value.clear()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def cloned(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: cloned(item) for key, item in value.items()}
    return type(value)(map(cloned, value)) if isinstance(value, list | tuple) else value


@settings(max_examples=60)
@given(st.lists(st.tuples(WEIGHTS, STATES), min_size=1, max_size=3))
def test_what_is_written_is_what_was_submitted_though_a_thread_changes_it(
    submitted: list[tuple[dict[str, Tensor], dict[str, Any]]],
) -> None:
    with TemporaryDirectory() as folder:
        store = Gated(folder)
        with CheckpointWriter(store) as writer:
            for step, (weights, state) in enumerate(submitted, 1):
                expected = cloned(weights), cloned(state)
                store.gate.clear()
                writer.submit(step, weights, state)
                training = threading.Thread(target=spoil, args=([weights, state],))
                training.start()
                training.join()
                # Not a byte was written before everything had changed.
                assert f"save {step} ends" not in store.events
                store.gate.set()
                assert store.written.acquire(timeout=60)
                checkpoint = store.latest().checkpoint
                assert checkpoint is not None and checkpoint.step == step
                assert same(dict(sorted(checkpoint.weights.items())), dict(sorted(expected[0].items())))
                assert same(checkpoint.trainer_state, expected[1])


def test_what_is_written_while_a_model_trains_is_what_it_was_at_its_step(tmp_path: Path) -> None:
    """Nothing holds the writer back here: each checkpoint is written while the next step is taken."""
    config = make_config(train={"num_steps": 24, "checkpoint_every_steps": 1, "log_every_steps": 100})
    records, order = make_records(50), make_order(config, 50)
    trainer = Trainer(make_model(), config, order)
    expected: dict[int, tuple[dict[str, Tensor], dict[str, Any]]] = {}
    store = CheckpointStore(str(tmp_path))

    def assert_newest_is_one_of(*steps: int) -> None:
        checkpoint = store.latest().checkpoint
        assert checkpoint is not None and checkpoint.step in steps
        weights, state = expected[checkpoint.step]
        assert checkpoint.weights.keys() == weights.keys() and same(checkpoint.trainer_state, state)
        assert all(same(checkpoint.weights[name], weight) for name, weight in weights.items())

    with CheckpointWriter(store) as writer:

        def save() -> None:
            state, step = trainer.state(), trainer.step
            expected[step] = cloned(dict(trainer.model.state_dict())), cloned(state)
            writer.submit(step, trainer.model.state_dict(), state)
            if step > 1:
                assert_newest_is_one_of(step - 1, step)

        trainer.run(batches_from(records, config, order, 0), 24, [].append, save)
    assert_newest_is_one_of(24)


def test_one_write_is_in_flight_and_its_buffers_serve_again(tmp_path: Path) -> None:
    store = Gated(str(tmp_path))
    store.gate.set()
    with CheckpointWriter(store) as writer:
        for step in range(1, 6):
            writer.submit(step, weights_at(step), state_at(step))
    assert store.events == [f"save {step} {moment}" for step in range(1, 6) for moment in ("starts", "ends")]
    assert len({tuple(places) for places in store.places}) == 1
    assert_is_step(store.latest().checkpoint, 5)


def test_a_submit_waits_for_the_write_before_it_and_counts_the_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Gated(str(tmp_path))
    now, num_asked = 0.0, 0

    def clock() -> float:
        """Seven seconds pass with each checkpoint that is written; the first one goes on as the second is submitted."""
        nonlocal num_asked
        num_asked += 1
        asked_at = now
        if num_asked == 3:
            store.gate.set()
        return asked_at

    class Slow(CheckpointStore):
        def save(self, *arguments: Any) -> None:
            nonlocal now
            store.save(*arguments)
            now += 7.0

    monkeypatch.setattr("mlim_ray.training.checkpoint_writer.time", SimpleNamespace(perf_counter=clock))
    with CheckpointWriter(Slow(store.folder)) as writer:
        writer.submit(1, weights_at(1), state_at(1))
        assert writer.wait_s == 0.0 and "save 1 ends" not in store.events
        writer.submit(2, weights_at(2), state_at(2))
        assert writer.wait_s == 7.0 and store.events[:2] == ["save 1 starts", "save 1 ends"]
    assert store.events[2:] == ["save 2 starts", "save 2 ends"]
    assert_is_step(store.latest().checkpoint, 2)


@contextmanager
def no_folder_can_be_made(folder: Path) -> Iterator[None]:
    """A file stands where the folder of the checkpoints should be."""
    folder.write_text("in the way")
    yield
    folder.unlink()


@pytest.mark.parametrize("told_at", ["submit", "close", "the end of the block"])
def test_a_write_that_fails_is_told_once_with_its_own_error(tmp_path: Path, told_at: str) -> None:
    folder = tmp_path / "checkpoints"
    writer = CheckpointWriter(CheckpointStore(str(folder)))
    with no_folder_can_be_made(folder):
        if told_at == "the end of the block":
            with pytest.raises(storage.StorageError, match=str(folder)), writer:
                writer.submit(1, weights_at(1), state_at(1))
            return
        writer.submit(1, weights_at(1), state_at(1))
        with pytest.raises(storage.StorageError, match=str(folder)):
            writer.submit(2, weights_at(2), state_at(2)) if told_at == "submit" else writer.close()
    if told_at == "submit":
        # What failed is told and forgotten: the one who knows better may go on.
        writer.submit(3, weights_at(3), state_at(3))
    writer.close()
    assert CheckpointStore(str(folder)).steps() == ([3] if told_at == "submit" else [])


def test_a_write_that_fails_while_training_fails_is_told_beside_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "checkpoints"
    with (
        no_folder_can_be_made(folder),
        pytest.raises(RuntimeError, match="the feed ended") as caught,
        CheckpointWriter(CheckpointStore(str(folder))) as writer,
    ):
        writer.submit(1, weights_at(1), state_at(1))
        raise RuntimeError("the feed ended")
    [note] = caught.value.__notes__
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert all("was not written" in text and str(folder) in text for text in (note, record.getMessage()))


def test_what_is_in_flight_is_written_when_training_fails(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    with pytest.raises(KeyboardInterrupt), CheckpointWriter(store) as writer:
        writer.submit(7, weights_at(7), state_at(7), 0.5)
        raise KeyboardInterrupt
    assert_is_step(store.latest().checkpoint, 7)
    assert [entry.score for entry in store.entries()] == [0.5]
    assert_nothing_else(store)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: copies into pinned memory are queued")
def test_tensors_on_a_gpu_are_copied_before_they_change(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    weights = {name: torch.rand(1 << 22, device="cuda") for name in "abc"}
    expected = {name: weight.cpu() for name, weight in weights.items()}
    with CheckpointWriter(store) as writer:
        writer.submit(1, weights, {"step": 1, "moments": list(weights.values())})
        for weight in weights.values():
            weight.zero_()
    checkpoint = store.latest().checkpoint
    assert checkpoint is not None and same(checkpoint.weights, expected)
    assert same(checkpoint.trainer_state["moments"], list(expected.values()))
