"""Small records, models and configs that several tests share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mlim_ray.config import PretrainConfig
from mlim_ray.data.counter import hash_key
from mlim_ray.data.records import Records
from mlim_ray.model import MlimConfig, MlimModel
from mlim_ray.training.batch import Masking
from mlim_ray.training.build import run_masking
from mlim_ray.training.metrics import OF_THE_MACHINE
from mlim_ray.training.order import StreamOrder

# The models are so small that a second thread only waits for the first.
torch.set_num_threads(1)

PAD, CLS, SEP, MASK, FIRST_PIECE = 0, 2, 3, 4, 5
IMAGE_SIZE, NUM_CELLS, MAX_TOKENS, VOCAB_SIZE = 16, 16, 10, 40
SHAPE: dict[str, Any] = {
    "image_size": IMAGE_SIZE,
    "embedder_channels": (8, 32),
    "decoder_channels": (16,),
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": VOCAB_SIZE,
    "mask_token_id": MASK,
    "pad_token_id": PAD,
    "max_tokens": MAX_TOKENS,
}


def word_rows(pieces_of_words: Sequence[Sequence[int]], width: int) -> np.ndarray:
    """`word_of_token` of titles given by the number of pieces of each of their words."""
    rows = np.full((len(pieces_of_words), width), -1, np.int16)
    for row, pieces in zip(rows, pieces_of_words, strict=True):
        row[1 : 1 + sum(pieces)] = np.repeat(np.arange(len(pieces)), pieces)
    return rows


def make_records(num_records: int, seed: int = 0) -> Records:
    """Records with smooth pictures and titles of 0 to 4 words, each of one or two pieces."""
    rng = np.random.default_rng(seed)
    words = word_rows([rng.integers(1, 3, rng.integers(0, 5)).tolist() for _ in range(num_records)], MAX_TOKENS)
    num_tokens = (words >= 0).sum(1) + 2
    token_ids = np.where(words >= 0, rng.integers(FIRST_PIECE, VOCAB_SIZE, words.shape), PAD).astype(np.int32)
    token_ids[:, 0] = CLS
    token_ids[np.arange(num_records), num_tokens - 1] = SEP
    corners = rng.uniform(0, 255, (num_records, 2, 2, 3))
    pixels = corners.repeat(IMAGE_SIZE // 2, 1).repeat(IMAGE_SIZE // 2, 2)
    keys = [hash_key(f"record {seed} {i}") for i in range(num_records)]
    return Records(np.array(keys, np.uint64), pixels.astype(np.uint8), token_ids, words, num_tokens.astype(np.int16))


def make_model(seed: int = 0, **shape: Any) -> MlimModel:
    """A model of a few thousand weights for `make_records`."""
    torch.manual_seed(seed)
    return MlimModel(MlimConfig(**(SHAPE | shape)))


def make_config(**sections: dict[str, Any]) -> PretrainConfig:
    """A resolved config; `train={"num_steps": 3}` and the like change it."""
    train = {"learning_rate": 1e-3, "precision": "float32", "batch_size": 16} | sections.pop("train", {})
    recon = {"kind": "pixels"} | sections.pop("recon", {})
    return PretrainConfig.model_validate({"train": train, "recon": recon, **sections})


def make_masking(config: PretrainConfig) -> Masking:
    """What the batches of a run with `make_model` depend on besides the records."""
    return run_masking(config, MlimConfig(**SHAPE))


def make_order(config: PretrainConfig, num_records: int, *, group_records: int = 4) -> StreamOrder:
    """A run's order over small row groups, on six lanes of two groups."""
    return StreamOrder(num_records, group_records, config.train.batch_size, 6, 2, config.train.seed)


def timeless(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of metrics without what differs from run to run though all that is learned is the same."""
    return [{name: value for name, value in line.items() if not name.startswith(OF_THE_MACHINE)} for line in lines]


def figures(line: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics that do not tell the time."""
    return {name: value for name, value in line.items() if not name.startswith((*OF_THE_MACHINE, "data/"))}


def digests(line: dict[str, Any]) -> dict[str, str]:
    """What a line of metrics says its batches were made of."""
    return {name: value for name, value in line.items() if name.startswith("data/")}
