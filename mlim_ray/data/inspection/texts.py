"""How long the texts of a sample are, in characters, words and pieces."""

from __future__ import annotations

from collections.abc import Sequence

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.inspection.distribution import Distribution
from mlim_ray.data.inspection.facts import TextFacts
from mlim_ray.data.tokenizer import TextTokenizer, count_words, load_tokenizer, train_tokenizer

# More pieces than any cleaned text has, so that nothing is cut.
_NO_LIMIT = 1 << 20
_NUM_SPECIAL = 2


class TextSurvey:
    """Gathers accepted texts, and splits them once all are there."""

    def __init__(self, config: PrepareConfig) -> None:
        """Raises ValueError if the config names a tokenizer that cannot be used."""
        self._config = config
        self._given = None if config.tokenizer is None else load_tokenizer(storage.absolute(config.tokenizer))
        self._texts: list[str] = []
        self._train_texts: list[str] = []
        self._num_cut = 0

    def add(self, text: str, split: str, was_cut: bool) -> None:
        """Count one accepted text."""
        self._texts.append(text)
        self._num_cut += was_cut
        if split == "train":
            self._train_texts.append(text)

    def facts(self) -> TextFacts | None:
        """Of all texts so far; None if there are none.

        Without a given tokenizer a vocabulary is trained on the training texts of the sample, or on all where
        there are none.
        """
        if not self._texts:
            return None
        tokenizer = self._given or train_tokenizer(
            count_words(self._train_texts or self._texts), self._config.vocabulary_size
        )
        num_words, num_tokens, num_unknown = _lengths(self._texts, tokenizer)
        characters, words, tokens = map(Distribution.of, ([len(text) for text in self._texts], num_words, num_tokens))
        assert characters is not None and words is not None and tokens is not None
        num_pieces = sum(num_tokens) - _NUM_SPECIAL * len(num_tokens)
        return TextFacts(
            characters=characters,
            words=words,
            tokens=tokens,
            num_texts=len(self._texts),
            max_text_characters=self._config.max_text_characters,
            num_cut_characters=self._num_cut,
            max_tokens=self._config.max_tokens,
            num_cut_tokens=sum(count > self._config.max_tokens for count in num_tokens),
            tokenizer=self._config.tokenizer,
            vocab_size=tokenizer.vocab_size,
            unknown_ratio=num_unknown / num_pieces if num_pieces else 0.0,
        )


def _lengths(texts: Sequence[str], tokenizer: TextTokenizer) -> tuple[list[int], list[int], int]:
    """Words and pieces ([CLS] and [SEP] included) of each text, and how many pieces are unknown."""
    num_words, num_tokens, num_unknown = [], [], 0
    for pieces in tokenizer.encode(texts, _NO_LIMIT):
        num_words.append(max(pieces.word_of_token) + 1)
        num_tokens.append(len(pieces.token_ids))
        num_unknown += pieces.token_ids.count(tokenizer.unk_id)
    return num_words, num_tokens, num_unknown
