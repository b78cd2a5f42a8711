"""WordPiece: training a vocabulary, keeping it in a folder, and splitting texts into pieces and words.

Texts are lower-cased; accents stay, because they tell words of many languages apart (our choice).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from mlim_ray.data import storage

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The first pieces of a trained vocabulary, so [PAD] is 0."""
ALPHABET_RATIO = 0.75
"""Most of a vocabulary that single characters may take (our choice); the rarer ones become [UNK]."""
_NORMALISER = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
_SPLITTER = pre_tokenizers.BertPreTokenizer()
# What the two make of printable ASCII in lower case: runs of letters and digits, and every mark of punctuation.
_ASCII_WORD = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
_REPEATS_PER_TEXT = 1_000
_MOST_KNOWN_WORDS = 50_000
_MODEL_FILE = "tokenizer.json"


@dataclass(frozen=True)
class Pieces:
    """One text as WordPiece ids with [CLS] and [SEP], and the word that each belongs to (-1 for the two)."""

    token_ids: list[int]
    word_of_token: list[int]


class TextTokenizer:
    """A WordPiece tokenizer with the ids of its special tokens."""

    def __init__(self, tokenizer: Tokenizer, name: str = "tokenizer") -> None:
        """Raises ValueError if a special token is missing or the model is not WordPiece."""
        if not isinstance(tokenizer.model, models.WordPiece):
            raise ValueError(f"{name} is a {type(tokenizer.model).__name__} tokenizer; expected WordPiece")
        missing = [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]
        if missing:
            raise ValueError(f"{name} has no {', '.join(missing)}; expected all of {', '.join(SPECIAL_TOKENS)}")
        self.tokenizer = tokenizer
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            cast(int, tokenizer.token_to_id(token)) for token in SPECIAL_TOKENS
        )
        self._added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        self._splits_as_ours = all(
            theirs is not None and theirs.__getstate__() == ours.__getstate__()
            for theirs, ours in ((tokenizer.normalizer, _NORMALISER), (tokenizer.pre_tokenizer, _SPLITTER))
        )
        self._known: dict[str, list[int]] = {}

    @property
    def vocab_size(self) -> int:
        """Number of pieces, special tokens included."""
        return int(self.tokenizer.get_vocab_size())

    def encode(self, texts: Sequence[str], max_tokens: int) -> list[Pieces]:
        """Split `texts` into at most `max_tokens` pieces, cut at a word unless the first word is longer."""
        # Texts share their words: looking each up takes less than a third of the library's time over whole texts.
        by_word = [self._splits_as_ours and not any(token in text for token in self._added) for text in texts]
        others = iter(
            self.tokenizer.encode_batch(
                [text for text, known in zip(texts, by_word, strict=True) if not known], add_special_tokens=False
            )
        )
        found = []
        for text, known in zip(texts, by_word, strict=True):
            if known:
                found.append(self._of_words(split_words(text), max_tokens - 2))
            else:
                encoding = next(others)
                found.append(self._with_ends(encoding.ids, encoding.word_ids, max_tokens - 2))
        return found

    def files(self) -> dict[str, bytes]:
        """File name to content of a folder that transformers loads."""
        vocabulary = self.tokenizer.get_vocab()
        pieces = sorted(vocabulary, key=vocabulary.__getitem__)
        names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **dict(zip(names, SPECIAL_TOKENS, strict=True)),
            "clean_up_tokenization_spaces": False,
        }
        return {
            _MODEL_FILE: self.tokenizer.to_str(pretty=True).encode(),
            "tokenizer_config.json": json.dumps(settings, indent=2).encode(),
            "vocab.txt": "".join(f"{piece}\n" for piece in pieces).encode(),
        }

    def _of_words(self, words: list[str], max_pieces: int) -> Pieces:
        ids, word_of_token = [self.cls_id], [-1]
        for place, word in enumerate(words):
            pieces = self._pieces(word)
            if len(ids) - 1 + len(pieces) > max_pieces:
                if place > 0:
                    break
                pieces = pieces[:max_pieces]
            ids += pieces
            word_of_token += [place] * len(pieces)
        return Pieces([*ids, self.sep_id], [*word_of_token, -1])

    def _pieces(self, word: str) -> list[int]:
        found = self._known.get(word)
        if found is None:
            if len(self._known) == _MOST_KNOWN_WORDS:
                self._known.clear()
            found = self._known[word] = [token.id for token in self.tokenizer.model.tokenize(word)]
        return found

    def _with_ends(self, ids: list[int], words: list[int | None], max_pieces: int) -> Pieces:
        cut = len(ids)
        if cut > max_pieces:
            cut = max_pieces
            while cut > 0 and words[cut] == words[cut - 1]:
                cut -= 1
            cut = cut or max_pieces
        inner = [-1 if word is None else word for word in words[:cut]]
        return Pieces([self.cls_id, *ids[:cut], self.sep_id], [-1, *inner, -1])


def load_tokenizer(folder: str) -> TextTokenizer:
    """The WordPiece tokenizer of `folder`: its tokenizer.json, or a BERT vocab.txt.

    Raises ValueError that names the folder if there is none or it cannot be used.
    """
    path = storage.join(folder, _MODEL_FILE)
    if storage.exists(path):
        content = storage.read_bytes(path)
        try:
            tokenizer = Tokenizer.from_str(content.decode())
        except Exception as error:
            # The library raises bare Exception for a file it cannot parse.
            raise ValueError(f"{path} is no tokenizer: {error}") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return TextTokenizer(tokenizer, folder)
    path = storage.join(folder, "vocab.txt")
    if not storage.exists(path):
        raise ValueError(f"{folder} holds neither {_MODEL_FILE} nor vocab.txt; expected a tokenizer's folder")
    pieces = storage.read_bytes(path).decode().split("\n")
    vocabulary = {piece.rstrip("\r"): i for i, piece in enumerate(pieces) if piece.strip()}
    return TextTokenizer(_wordpiece(vocabulary), folder)


def split_words(text: str) -> list[str]:
    """The normalised words and marks of a text, which pieces are parts of."""
    if text.isascii() and text.isprintable():
        # A tenth of the library's time.
        return _ASCII_WORD.findall(text.lower())
    return [word for word, _ in _SPLITTER.pre_tokenize_str(_NORMALISER.normalize_str(text))]


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each normalised word occurs."""
    return Counter(chain.from_iterable(map(split_words, texts)))


def train_tokenizer(words: Counter[str], vocabulary_size: int) -> TextTokenizer:
    """A WordPiece vocabulary of at most `vocabulary_size` pieces; the same words give the same vocabulary.

    Raises ValueError if there are no words.
    """
    if not words:
        raise ValueError("no words to train a vocabulary on; expected texts in the training split")
    # The trainer numbers pieces it meets in the order of a hash map that differs in every process, and
    # breaks ties by number. With the whole alphabet given as its first tokens, nothing is left to that
    # order.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[*SPECIAL_TOKENS, *_alphabet(words, vocabulary_size)],
        show_progress=False,
        # None beside those given.
        limit_alphabet=0,
    )
    learner = Tokenizer(models.WordPiece(unk_token=UNK))
    # Words are normalised and hold no space.
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    learner.train_from_iterator(_repeated(words), trainer)
    return TextTokenizer(_wordpiece(learner.get_vocab(with_added_tokens=False)))


def _wordpiece(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNK))
    tokenizer.normalizer = _NORMALISER
    tokenizer.pre_tokenizer = _SPLITTER
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([token for token in SPECIAL_TOKENS if token in vocabulary])
    if CLS in vocabulary and SEP in vocabulary:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{CLS} $A {SEP}",
            pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
            special_tokens=[(CLS, vocabulary[CLS]), (SEP, vocabulary[SEP])],
        )
    return tokenizer


def _alphabet(words: Counter[str], vocabulary_size: int) -> list[str]:
    """The most frequent characters, as beginning of a word and (with ##) inside one, in a fixed order."""
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for word, count in words.items():
        for character in word:
            counts[character] += count
        inside.update(word[1:])
    limit = int((vocabulary_size - len(SPECIAL_TOKENS)) * ALPHABET_RATIO)
    kept: list[str] = []
    for character in sorted(counts, key=lambda character: (-counts[character], character)):
        # The trainer knows a character inside words only if it knows it as a beginning too.
        forms = [character, f"##{character}"] if character in inside else [character]
        if len(kept) + len(forms) > limit:
            break
        kept += forms
    return sorted(kept)


def _repeated(words: Counter[str]) -> Iterator[str]:
    """Texts in which each word occurs as often as counted; the trainer takes no counts."""
    for word in sorted(words):
        full, rest = divmod(words[word], _REPEATS_PER_TEXT)
        text = " ".join([word] * _REPEATS_PER_TEXT)
        for _ in range(full):
            yield text
        if rest:
            yield " ".join([word] * rest)
