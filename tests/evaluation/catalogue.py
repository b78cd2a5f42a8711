"""Generated listings as examples, without a prepared set."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from mlim_ray.data.counter import hash_key
from mlim_ray.data.records import Records
from mlim_ray.data.synthetic import generate
from mlim_ray.data.tokenizer import TextTokenizer, count_words, train_tokenizer
from mlim_ray.evaluation.examples import Examples

ATTRIBUTE_COLUMNS = ("colour", "pattern", "material", "brand", "size")
IMAGE_SIZE, MAX_TOKENS = 16, 24


def catalogue_examples(num_records: int) -> tuple[Examples, Examples, TextTokenizer]:
    """The training and test listings of a generated catalogue with 16 px pictures, and their tokenizer."""
    table = generate(0, num_records, num_records=num_records, seed=1, image_size=IMAGE_SIZE)
    tokenizer = train_tokenizer(count_words(table["text"].to_pylist()), 200)
    train, test = (
        _examples(table.filter(pc.equal(table["split"], split)), split, tokenizer) for split in ("train", "test")
    )
    return train, test, tokenizer


def _examples(table: pa.Table, split: str, tokenizer: TextTokenizer) -> Examples:
    keys, texts = table["key"].to_pylist(), table["text"].to_pylist()
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(image))) for image in table["image"].to_pylist()])
    token_ids = np.zeros((len(keys), MAX_TOKENS), np.int32)
    words = np.full((len(keys), MAX_TOKENS), -1, np.int16)
    num_tokens = np.zeros(len(keys), np.int16)
    for row, pieces in enumerate(tokenizer.encode(texts, MAX_TOKENS)):
        num_tokens[row] = len(pieces.token_ids)
        token_ids[row, : num_tokens[row]] = pieces.token_ids
        words[row, : num_tokens[row]] = pieces.word_of_token
    hashes = np.array([hash_key(key) for key in keys], np.uint64)
    return Examples(
        split,
        Records(hashes, pixels, token_ids, words, num_tokens),
        keys,
        texts,
        table["label"].to_numpy(zero_copy_only=False),
        table["group"].to_numpy(zero_copy_only=False),
        {name: table[name].to_numpy(zero_copy_only=False) for name in ATTRIBUTE_COLUMNS},
    )
