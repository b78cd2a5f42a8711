"""A bench of made records, for evaluations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models

from mlim_ray.data.manifest import Statistics
from mlim_ray.data.records import Records
from mlim_ray.data.tokenizer import SPECIAL_TOKENS, TextTokenizer
from mlim_ray.evaluation.bench import Bench
from mlim_ray.evaluation.examples import Examples
from tests.builders import make_model, make_records

STATISTICS = Statistics(unigram_entropy=2.0, pixel_variance=0.5)


def make_examples(split: str, num_records: int, seed: int) -> Examples:
    """Records whose label is one of three and whose group holds two."""
    return examples_of(split, make_records(num_records, seed), f"{split} ")


def examples_of(split: str, records: Records, prefix: str = "") -> Examples:
    """These records, with keys and texts of their own."""
    numbers = range(len(records.key_hash_R))
    return Examples(
        split,
        records,
        [f"{prefix}key {i}" for i in numbers],
        [f"{prefix}title {i}" for i in numbers],
        np.array([f"label {i % 3}" for i in numbers], np.object_),
        np.array([f"{prefix}group {i // 2}" for i in numbers], np.object_),
        {"hue": np.array([("red", "blue", None)[i % 3] for i in numbers], np.object_)},
    )


def make_bench(**changes: Any) -> Bench:
    """A bench of a model of a few thousand weights and its twin; `changes` replace fields."""
    bench = Bench(
        make_model(1).eval(),
        make_model(0).eval(),
        TextTokenizer(Tokenizer(models.WordPiece({name: i for i, name in enumerate(SPECIAL_TOKENS)}))),
        make_examples("train", 60, 1),
        make_examples("val", 20, 2),
        make_examples("test", 40, 3),
        0,
        lambda what, done, total: None,
        STATISTICS,
    )
    return replace(bench, **changes)
