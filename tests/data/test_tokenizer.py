import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from mlim_ray.data.tokenizer import (
    SPECIAL_TOKENS,
    TextTokenizer,
    count_words,
    load_tokenizer,
    split_words,
    train_tokenizer,
)

TEXTS = [
    f"{adjective} {noun}, size-{size}"
    for adjective in ("red", "reddish", "caf\u00e9-brown", "unbelievable")
    for noun in ("shirt", "shirts", "shoe", "\u9774")
    for size in range(20)
]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train_tokenizer(count_words(TEXTS), 120)


def write(folder: Path, tokenizer: TextTokenizer) -> None:
    for name, content in tokenizer.files().items():
        (folder / name).write_bytes(content)


def test_special_tokens_come_first(tokenizer: TextTokenizer) -> None:
    assert [
        tokenizer.pad_id,
        tokenizer.unk_id,
        tokenizer.cls_id,
        tokenizer.sep_id,
        tokenizer.mask_id,
    ] == list(range(5))
    assert tokenizer.vocab_size <= 120


def test_the_training_texts_have_no_unknown_pieces(tokenizer: TextTokenizer) -> None:
    assert all(tokenizer.unk_id not in pieces.token_ids for pieces in tokenizer.encode(TEXTS, 64))


def test_words_keep_their_accents_and_lose_their_case(tokenizer: TextTokenizer) -> None:
    upper, lower, plain = tokenizer.encode(["CAF\u00c9", "caf\u00e9", "cafe"], 64)
    assert upper == lower != plain


def test_the_same_words_give_the_same_vocabulary_in_another_process(tokenizer: TextTokenizer) -> None:
    words = dict(count_words(TEXTS))
    program = (
        "import json, sys; from mlim_ray.data.tokenizer import *; from collections import Counter;"
        "words = Counter(json.loads(sys.stdin.read()));"
        "sys.stdout.write(train_tokenizer(words, 120).files()['tokenizer.json'].decode())"
    )
    for order in (sorted(words), sorted(words, reverse=True)):
        given = json.dumps({word: words[word] for word in order})
        result = subprocess.run(
            [sys.executable, "-c", program], input=given, capture_output=True, text=True, check=True
        )
        assert result.stdout.encode() == tokenizer.files()["tokenizer.json"]


def test_transformers_reads_the_folder_and_agrees(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    write(tmp_path, tokenizer)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text, pieces in zip(TEXTS[::37], tokenizer.encode(TEXTS[::37], 64), strict=True):
        assert theirs(text)["input_ids"] == pieces.token_ids
    assert theirs.pad_token_id == 0 and theirs.mask_token_id == 4


def test_a_saved_tokenizer_is_read_back(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    write(tmp_path, tokenizer)
    assert load_tokenizer(str(tmp_path)).encode(TEXTS, 64) == tokenizer.encode(TEXTS, 64)
    (tmp_path / "tokenizer.json").unlink()
    assert load_tokenizer(str(tmp_path)).encode(TEXTS, 64) == tokenizer.encode(TEXTS, 64)


_ODD_PARTS = [*SPECIAL_TOKENS, "red", "SHIRT", "shirts", "_", "[", "]", " ", "\t", "\x7f", "\u0130", "-"]
_ANY_TEXT = st.one_of(
    st.text(max_size=80),
    st.text(st.characters(max_codepoint=0x17F), max_size=80),
    st.lists(st.sampled_from(_ODD_PARTS)).map("".join),
    st.integers(90, 110).map(lambda length: "a" * length),
)


@given(text=_ANY_TEXT)
def test_words_and_pieces_are_those_of_the_library(tokenizer: TextTokenizer, text: str) -> None:
    library = tokenizer.tokenizer
    expected = library.encode(text, add_special_tokens=False)
    pieces = tokenizer.encode([text], 10_000)[0]
    assert pieces.token_ids == [tokenizer.cls_id, *expected.ids, tokenizer.sep_id]
    assert pieces.word_of_token == [-1, *(-1 if word is None else word for word in expected.word_ids), -1]
    words = library.pre_tokenizer.pre_tokenize_str(library.normalizer.normalize_str(text))
    assert split_words(text) == [word for word, _ in words]


def test_a_given_tokenizer_splits_texts_in_its_own_way(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    write(tmp_path, tokenizer)
    settings = json.loads((tmp_path / "tokenizer.json").read_text())
    settings["normalizer"]["lowercase"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(settings))
    cased = load_tokenizer(str(tmp_path))
    lower, upper = cased.encode(["red", "RED"], 64)
    assert lower == tokenizer.encode(["red"], 64)[0] != upper


@given(text=st.text(max_size=80), max_tokens=st.integers(3, 20))
def test_pieces_are_bounded_and_words_stay_whole(text: str, max_tokens: int) -> None:
    tokenizer = train_tokenizer(count_words(TEXTS), 120)
    pieces, whole = tokenizer.encode([text], max_tokens)[0], tokenizer.encode([text], 10_000)[0]
    assert len(pieces.token_ids) == len(pieces.word_of_token) <= max_tokens
    assert pieces.token_ids[0] == tokenizer.cls_id and pieces.token_ids[-1] == tokenizer.sep_id
    assert pieces.word_of_token[0] == pieces.word_of_token[-1] == -1
    inner = pieces.word_of_token[1:-1]
    assert inner == whole.word_of_token[1 : 1 + len(inner)]
    if inner and inner[-1] > 0:
        assert inner.count(inner[-1]) == whole.word_of_token.count(inner[-1])


def test_a_cut_never_splits_a_word(tokenizer: TextTokenizer) -> None:
    text = "dbdb bdbd dbd bdb dbdb"
    whole = tokenizer.encode([text], 64)[0].word_of_token
    assert max(map(whole.count, range(5))) > 1
    for max_tokens in range(7, 20):
        kept = tokenizer.encode([text], max_tokens)[0].word_of_token[1:-1]
        assert len(kept) <= max_tokens - 2
        assert all(kept.count(word) == whole.count(word) for word in set(kept))


def test_a_first_word_longer_than_the_limit_keeps_its_first_pieces(tokenizer: TextTokenizer) -> None:
    pieces = tokenizer.encode(["dbdbdbdbdbdbdb"], 6)[0]
    assert pieces.word_of_token == [-1, 0, 0, 0, 0, -1]


def test_rare_characters_cannot_fill_a_vocabulary() -> None:
    words = Counter({chr(0x4E00 + i): 1 for i in range(5_000)}) + Counter({"shirt": 500, "shirts": 400})
    tokenizer = train_tokenizer(words, 200)
    assert tokenizer.vocab_size <= 200
    assert len(tokenizer.encode(["shirts"], 64)[0].token_ids) == 3


def test_no_words_is_an_error() -> None:
    with pytest.raises(ValueError, match="no words"):
        train_tokenizer(Counter(), 120)


def test_unusable_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        load_tokenizer(str(tmp_path))
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\nword\n")
    with pytest.raises(ValueError, match=r"no \[CLS\], \[SEP\], \[MASK\]"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="tokenizer.json is no tokenizer"):
        load_tokenizer(str(tmp_path))
    assert len(SPECIAL_TOKENS) == 5
