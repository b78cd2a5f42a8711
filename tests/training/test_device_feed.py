"""Batches with their tensors: each once, none more than is trained on, and on a GPU one ahead."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from mlim_ray.training.batch import Batch, make_batch
from mlim_ray.training.clock import Clock
from mlim_ray.training.device_feed import DeviceFeed
from mlim_ray.training.tensors import to_tensors
from tests.builders import make_config, make_masking, make_records

CPU = torch.device("cpu")
RECORDS = make_records(12)


def batches() -> Iterator[Batch]:
    return (make_batch(RECORDS, epoch, make_masking(make_config())) for epoch in itertools.count())


def test_batches_come_in_order_in_parts_and_no_more_than_asked_for() -> None:
    given = batches()
    feed = DeviceFeed(given, 3, CPU, 5, Clock())
    for epoch in range(3):
        feed.prefetch()
        step = feed.take()
        assert step is not None and (step.batch.epoch_B == epoch).all()
        assert [part.num_records for part in step.parts] == [5, 5, 2]
        whole = to_tensors(step.batch, CPU)
        assert torch.equal(torch.cat([part.inputs.pixels_B3HW for part in step.parts]), whole.pixels_B3HW)
        assert torch.equal(torch.cat([part.inputs.mode_B for part in step.parts]), whole.mode_B)
    feed.prefetch()
    assert feed.take() is None
    assert (next(given).epoch_B == 3).all()


def test_a_step_without_records_has_a_blank_one() -> None:
    empty = next(batches()).take(slice(0, 0))
    step = DeviceFeed(iter([empty]), 1, CPU, None, Clock()).take()
    assert step is not None
    (part,) = step.parts
    assert part.num_records == 0 and len(part.inputs.mode_B) == 1 and not part.inputs.token_hidden_BT.any()


def test_a_feed_that_ends_gives_none() -> None:
    feed = DeviceFeed(itertools.islice(batches(), 1), 2, CPU, None, Clock())
    assert feed.take() is not None
    assert feed.take() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_has_the_next_batch_before_it_is_asked_for() -> None:
    taken = []
    noted = (taken.append(int(batch.epoch_B[0])) or batch for batch in batches())
    feed = DeviceFeed(noted, 2, torch.device("cuda", 0), None, Clock())
    first = feed.take()
    feed.prefetch()
    assert taken == [0, 1]
    feed.prefetch()
    second = feed.take()
    assert taken == [0, 1] and first is not None and second is not None
    for step in (first, second):
        expected = to_tensors(step.batch, CPU)
        for ours, theirs in zip(step.parts[0].inputs.tensors(), expected.tensors(), strict=True):
            assert ours.device.type == "cuda"
            np.testing.assert_array_equal(ours.cpu(), theirs)
