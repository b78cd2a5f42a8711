"""Benches of small records whose labels and titles a picture shows, or does not."""

from __future__ import annotations

from typing import Any

import numpy as np
from tokenizers import Tokenizer, models

from mlim_ray.data.records import Records
from mlim_ray.data.tokenizer import SPECIAL_TOKENS, TextTokenizer
from mlim_ray.evaluation.bench import Bench
from mlim_ray.evaluation.examples import Examples
from mlim_ray.model import MlimModel
from tests.builders import (
    CLS,
    FIRST_PIECE,
    IMAGE_SIZE,
    MAX_TOKENS,
    SEP,
    VOCAB_SIZE,
    make_model,
    make_records,
    word_rows,
)

TOKENIZER = TextTokenizer(
    Tokenizer(
        models.WordPiece(
            {piece: i for i, piece in enumerate([*SPECIAL_TOKENS, *(f"w{i}" for i in range(5, VOCAB_SIZE))])},
            unk_token="[UNK]",
        )
    )
)


def titled(records: Records, words: np.ndarray) -> Records:
    """The records with titles of these words [R, W], each one piece, counted from the first ordinary piece."""
    num_records, num_words = words.shape
    word_of_token = word_rows([[1] * num_words] * num_records, MAX_TOKENS)
    ids = np.zeros((num_records, MAX_TOKENS), np.int32)
    ids[:, 0], ids[:, num_words + 1] = CLS, SEP
    ids[:, 1 : num_words + 1] = FIRST_PIECE + words
    return records._replace(
        token_ids_RT=ids, word_of_token_RT=word_of_token, num_tokens_R=np.full(num_records, num_words + 2, np.int16)
    )


def painted(records: Records, kinds: np.ndarray, seed: int) -> Records:
    """The records with pictures that show which of eight kinds [R] each is, by the lightness of the three colours."""
    light = (kinds[:, None] >> np.arange(3)) & 1
    noise = np.random.default_rng(seed).integers(0, 60, (len(kinds), IMAGE_SIZE, IMAGE_SIZE, 3))
    return records._replace(pixels_RHW3=(noise + 150 * light[:, None, None]).astype(np.uint8))


def as_examples(records: Records, split: str, labels: Any, **attributes: Any) -> Examples:
    """Examples of records; what a record has not is None."""
    num_records = len(records.key_hash_R)
    return Examples(
        split,
        records,
        [f"{split} {i}" for i in range(num_records)],
        ["-"] * num_records,
        np.array(labels, object),
        np.full(num_records, None, object),
        {name: np.array(values, object) for name, values in attributes.items()},
    )


def kinds_of(num_records: int, seed: int, num_kinds: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, num_kinds, num_records)


def make_bench(
    examples: dict[str, Examples], model: MlimModel | None = None, progress: list[tuple[str, int, int]] | None = None
) -> Bench:
    """A bench over train, val and test examples."""
    told = [] if progress is None else progress
    return Bench(
        model or make_model(1),
        make_model(0),
        TOKENIZER,
        examples["train"],
        examples["val"],
        examples["test"],
        0,
        lambda *done: told.append(done),
    )


def records_of(kinds: np.ndarray, seed: int, *, picture_tells: bool = True, text_tells: bool = True) -> Records:
    """Records whose picture and first two words tell their kind, or do not; the third word is any."""
    rng = np.random.default_rng(seed + 1_000)
    shown, named = (kinds if tells else rng.integers(0, 8, len(kinds)) for tells in (picture_tells, text_tells))
    words = np.stack([named, 8 + named, 16 + rng.integers(0, 10, len(kinds))], 1)
    return titled(painted(make_records(len(kinds), seed), shown, seed), words)
