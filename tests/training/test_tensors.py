"""The tensors that the model is given are the batch, without padding that no record needs."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from mlim_ray.training.batch import make_batch
from mlim_ray.training.tensors import to_tensors
from tests.builders import NUM_CELLS, make_config, make_masking, make_records

CPU = torch.device("cpu")


def test_tensors_are_the_batch() -> None:
    batch = make_batch(make_records(20), 3, make_masking(make_config()))
    batch = batch.take(np.flatnonzero(batch.num_tokens_B < 9))
    inputs = to_tensors(batch, CPU)
    width = int(batch.num_tokens_B.max())
    assert width < batch.token_ids_BT.shape[1]
    assert inputs.token_ids_BT.shape == inputs.token_hidden_BT.shape == (len(batch.mode_B), width)
    assert inputs.token_present_BT.sum(1).tolist() == batch.num_tokens_B.tolist()
    np.testing.assert_array_equal(inputs.token_hidden_BT, batch.token_hidden_BT[:, :width])
    np.testing.assert_array_equal(inputs.cell_hidden_BN, batch.cell_hidden_BN)
    assert inputs.pixels_B3HW.dtype == torch.float32
    for record, row, column, channel in ((0, 0, 0, 0), (3, 2, 15, 1), (9, 15, 1, 2)):
        stored = batch.pixels_BHW3[record, row, column, channel]
        assert inputs.pixels_B3HW[record, channel, row, column].item() == np.float32(stored) / np.float32(255)


def test_a_batch_may_be_empty_or_read_only() -> None:
    batch = make_batch(make_records(4), 0, make_masking(make_config()))
    for array in batch:
        array.setflags(write=False)
    assert to_tensors(batch.take(slice(0, 0)), CPU).cell_hidden_BN.shape == (0, NUM_CELLS)
    before = batch.pixels_BHW3.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inputs = to_tensors(batch, CPU)
    inputs.pixels_B3HW.zero_()
    np.testing.assert_array_equal(batch.pixels_BHW3, before)
