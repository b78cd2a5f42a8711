"""Titles with some of their words dropped, so that a rule which reads titles cannot be read off them."""

from dataclasses import replace

import numpy as np

from mlim_ray.data.counter import draw
from mlim_ray.data.records import Records
from mlim_ray.data.tokenizer import TextTokenizer
from mlim_ray.evaluation.examples import Examples


def keep_words(examples: Examples, tokenizer: TextTokenizer, kept_ratio: float, seed: int) -> Examples:
    """The same records, each with a share of its title's words, drawn by its key; at least one word stays.

    Args:
        examples: the records.
        tokenizer: that their texts were split with.
        kept_ratio: share of the words of each title that is kept, rounded to whole words.
        seed: of the draws.
    """
    if kept_ratio == 1.0:
        return examples
    records = examples.records
    texts = [
        _keep(text, key_hash, kept_ratio, seed)
        for text, key_hash in zip(examples.texts, records.key_hash_R, strict=True)
    ]
    token_ids_RT, word_of_token_RT = np.zeros_like(records.token_ids_RT), np.full_like(records.word_of_token_RT, -1)
    num_tokens_R = np.zeros_like(records.num_tokens_R)
    for row, pieces in enumerate(tokenizer.encode(texts, token_ids_RT.shape[1])):
        num_tokens_R[row] = len(pieces.token_ids)
        token_ids_RT[row, : num_tokens_R[row]] = pieces.token_ids
        word_of_token_RT[row, : num_tokens_R[row]] = pieces.word_of_token
    shorter = Records(records.key_hash_R, records.pixels_RHW3, token_ids_RT, word_of_token_RT, num_tokens_R)
    return replace(examples, records=shorter, texts=texts)


def _keep(text: str, key_hash: np.uint64, kept_ratio: float, seed: int) -> str:
    words = text.split()
    num_kept = max(1, round(kept_ratio * len(words)))
    kept = np.sort(np.argsort(draw(seed, key_hash, np.arange(len(words))))[:num_kept])
    return " ".join(words[place] for place in kept)
