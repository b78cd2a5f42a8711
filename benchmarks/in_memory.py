"""Records and batches in memory for benchmarks of the training step: no source, no prepared set, no Ray."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from mlim_ray.config import ModelSize, PretrainConfig, TrainConfig
from mlim_ray.data.counter import draw
from mlim_ray.data.records import Records
from mlim_ray.model import MlimConfig, MlimModel
from mlim_ray.training.batch import Batch, Masking
from mlim_ray.training.order import StreamOrder
from mlim_ray.training.stream import resident_batches
from mlim_ray.training.trainer import Trainer

_PAD, _CLS, _SEP, _MASK, _FIRST_PIECE = 0, 2, 3, 4, 5


class TextLengths(NamedTuple):
    """How long texts are: the fewest tokens and a geometric number of further ones, cut at the most."""

    fewest: int
    most: int
    stops_after_token: float
    """probability"""


# As the titles of a fashion catalogue: 8.6 pieces on average, 6 to 13 from the 5th to the 95th percentile, 23 at most.
TITLES = TextLengths(6, 24, 0.28)
# A sentence or three: 29 tokens on average, 9 to 64 from the 5th to the 95th percentile.
DESCRIPTIONS = TextLengths(8, 64, 0.04)
TEXTS = {"titles": TITLES, "descriptions": DESCRIPTIONS}


@dataclass(frozen=True)
class Workload:
    """A model and what it is trained on, the same in every process that is told the same."""

    size: ModelSize
    batch_size: int
    image_size: int | None = None
    """None: the size's own"""
    num_layers: int | None = None
    """None: the size's own"""
    vocab_size: int = 3_000
    texts: TextLengths = TITLES
    num_records: int = 512

    @cached_property
    def shape(self) -> MlimConfig:
        """Of the model."""
        shape = MlimConfig.for_size(
            self.size,
            vocab_size=self.vocab_size,
            mask_token_id=_MASK,
            pad_token_id=_PAD,
            max_tokens=self.texts.most,
        )
        return replace(
            shape,
            image_size=self.image_size or shape.image_size,
            num_hidden_layers=self.num_layers or shape.num_hidden_layers,
        )

    def config(self, **train: Any) -> PretrainConfig:
        """A resolved config, for training without an end."""
        given: dict[str, Any] = {
            "learning_rate": 1e-4,
            "precision": "float32",
            "num_steps": 1_000_000,
            "batch_size": self.batch_size,
        }
        return PretrainConfig(train=TrainConfig(**(given | train)))

    def model(self, device: torch.device | None = None) -> MlimModel:
        """With the weights of seed 0, in training mode."""
        torch.manual_seed(0)
        return MlimModel(self.shape).to(device).train()

    def trainer(self, config: PretrainConfig, device: torch.device | None = None) -> Trainer:
        """Our loop, at step 0."""
        return Trainer(self.model(device), config, self.order)

    @cached_property
    def order(self) -> StreamOrder:
        """Of the records."""
        return StreamOrder(self.num_records, 64, self.batch_size, 1, 2, seed=0)

    @cached_property
    def records(self) -> Records:
        """Pictures of noise and titles of random pieces, a word each."""
        rng = np.random.default_rng(0)
        size, num_records = self.shape.image_size, self.num_records
        fewest, most, stops = self.texts
        num_tokens = np.minimum(fewest + rng.geometric(stops, num_records) - 1, most)
        position = np.arange(most)
        is_word = (position > 0) & (position < num_tokens[:, None] - 1)
        token_ids = np.where(is_word, rng.integers(_FIRST_PIECE, self.vocab_size, is_word.shape), _PAD)
        token_ids[:, 0] = _CLS
        token_ids[np.arange(num_records), num_tokens - 1] = _SEP
        return Records(
            draw(np.arange(num_records)),
            rng.integers(0, 256, (num_records, size, size, 3), dtype=np.uint8),
            token_ids.astype(np.int32),
            np.where(is_word, position - 1, -1).astype(np.int16),
            num_tokens.astype(np.int16),
        )

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of these steps, masked as the paper does."""
        masking = Masking(self.config().masking, seed=0, num_cells=self.shape.num_cells)
        return resident_batches(self.records, self.order, masking, range(1), start, stop)
