"""Titles: every word is explained by the record, and reading a title back is unique."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from mlim_ray.data.synthetic import ATTRIBUTES, TEMPLATES, generate, read_title
from mlim_ray.data.synthetic.titles import slot_attribute


@pytest.fixture(scope="module")
def catalogue() -> pa.Table:
    return generate(0, 4000, num_records=4000, seed=3, image_size=8)


def test_titles_are_four_to_eight_plain_words(catalogue: pa.Table) -> None:
    for text in catalogue["text"].to_pylist():
        assert re.fullmatch(r"[a-z]+( [a-z]+){3,7}", text)


def test_every_word_is_explained_by_the_record(catalogue: pa.Table) -> None:
    for row in catalogue.drop_columns(["image"]).to_pylist():
        row["category"] = row["label"]
        slots = TEMPLATES[read_title(row["text"]).template]
        for slot, word in zip(slots, row["text"].split(), strict=True):
            name = slot_attribute(slot)
            if name is None:
                assert word == slot
            else:
                assert word in ATTRIBUTES[name].wordings[ATTRIBUTES[name].names.index(row[name])]


def test_no_word_has_two_meanings() -> None:
    words = [word for attribute in ATTRIBUTES.values() for words in attribute.wordings for word in words]
    literals = {slot for slots in TEMPLATES for slot in slots if slot_attribute(slot) is None}
    assert len(words) == len(set(words)) and not literals & set(words)


def test_templates_differ_and_each_leaves_an_attribute_out() -> None:
    signatures = [tuple(slot_attribute(slot) or slot for slot in slots) for slots in TEMPLATES]
    assert len(set(signatures)) == len(TEMPLATES)
    for signature in signatures:
        named = [name for name in signature if name in ATTRIBUTES]
        assert len(named) == len(set(named)) < len(ATTRIBUTES)
    for name, attribute in ATTRIBUTES.items():
        if attribute.is_shown:
            assert any(name not in signature for signature in signatures)


def test_most_words_are_shown_by_the_picture(catalogue: pa.Table) -> None:
    counts: Counter[str] = Counter()
    for text in catalogue["text"].to_pylist():
        for slot in TEMPLATES[read_title(text).template]:
            name = slot_attribute(slot)
            counts["literal" if name is None else "shown" if ATTRIBUTES[name].is_shown else "unseen"] += 1
    assert counts["shown"] > 0.55 * counts.total()
    assert 0.1 * counts.total() < counts["unseen"] < 0.3 * counts.total()


def test_templates_and_wordings_are_uniform(catalogue: pa.Table) -> None:
    texts = catalogue["text"].to_pylist()
    templates = np.bincount([read_title(text).template for text in texts], minlength=len(TEMPLATES))
    assert np.all(np.abs(templates / len(texts) - 1 / len(TEMPLATES)) < 0.03)
    counts = Counter(word for text in texts for word in text.split())
    for attribute in ATTRIBUTES.values():
        for words in attribute.wordings:
            total = sum(counts[word] for word in words)
            share = 1 / len(words)
            for word in words:
                assert abs(counts[word] / total - share) <= 5 * (share * (1 - share) / total) ** 0.5


@pytest.mark.parametrize(
    "text", ["", "bowl", "aldery red striped", "aldery red striped spoon", "red aldery striped bowl"]
)
def test_a_foreign_title_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="generated catalogue expected"):
        read_title(text)


def test_templates_of_one_product_differ_and_tell_nothing_else(catalogue: pa.Table) -> None:
    templates_of_group: dict[str, list[int]] = {}
    for group, text in zip(catalogue["group"].to_pylist(), catalogue["text"].to_pylist(), strict=True):
        templates_of_group.setdefault(group, []).append(read_title(text).template)
    counts = np.zeros((len(TEMPLATES), len(TEMPLATES)))
    for templates in templates_of_group.values():
        assert len(set(templates)) == len(templates)
        for one, other in itertools.pairwise(templates):
            counts[one, other] += 1
    other_templates = ~np.eye(len(TEMPLATES), dtype=bool)
    expected = counts.sum() / other_templates.sum()
    chi_square = np.sum((counts[other_templates] - expected) ** 2) / expected
    freedom = other_templates.sum() - 1
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5
