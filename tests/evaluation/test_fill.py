"""Filling on a catalogue whose colours are known: what can be told is told, and what is hidden stays hidden."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from mlim_ray.config.embed import EmbedConfig
from mlim_ray.config.fill import FillConfig
from mlim_ray.data.counter import hash_key
from mlim_ray.data.records import Records
from mlim_ray.data.tokenizer import TextTokenizer, count_words, train_tokenizer
from mlim_ray.evaluation.bench import Bench
from mlim_ray.evaluation.examples import Examples
from mlim_ray.evaluation.fill import fill
from mlim_ray.evaluation.fill_result import (
    BAG,
    COLOURS,
    HISTOGRAM,
    MAJORITY,
    PRE_TRAINED,
    UNTRAINED_COLOURS,
    AttributeFilling,
    FilledWay,
    FillResult,
)
from mlim_ray.evaluation.filling_features import filling_features
from mlim_ray.evaluation.filling_report import FillingReport, fit_and_report
from tests.builders import IMAGE_SIZE, MAX_TOKENS, make_model

COLOURS_OF = {"Red": (220, 30, 30), "Navy Blue": (20, 20, 90), "Green": (30, 180, 40), "Off White": (240, 235, 220)}
KINDS = ("shirt", "shoe", "belt")
TOKENIZER: TextTokenizer = train_tokenizer(
    count_words([f"{name} {kind} by acme" for name in COLOURS_OF for kind in KINDS]), 120
)


def make_examples(split: str, num_records: int, seed: int, *, shows_colour: bool = True) -> Examples:
    """Pictures in the colour of the attribute, or in any; titles that name it. Kinds are told by the title alone."""
    rng = np.random.default_rng(seed)
    names = list(COLOURS_OF)
    colours = [names[i] for i in rng.choice(4, num_records, p=[0.4, 0.2, 0.2, 0.2])]
    kinds = [KINDS[i] for i in rng.integers(0, 3, num_records)]
    painted = colours if shows_colour else [names[i] for i in rng.integers(0, 4, num_records)]
    noise = rng.normal(0, 12, (num_records, IMAGE_SIZE, IMAGE_SIZE, 3))
    pixels = np.array([COLOURS_OF[name] for name in painted])[:, None, None] + noise
    texts = [f"acme {colour} {kind}" for colour, kind in zip(colours, kinds, strict=True)]
    pieces = TOKENIZER.encode(texts, MAX_TOKENS)
    ids, words = np.zeros((num_records, MAX_TOKENS), np.int32), np.full((num_records, MAX_TOKENS), -1, np.int16)
    for row, found in enumerate(pieces):
        ids[row, : len(found.token_ids)] = found.token_ids
        words[row, : len(found.token_ids)] = found.word_of_token
    keys = [f"{split} {i}" for i in range(num_records)]
    hashes = np.array([hash_key(key) for key in keys], np.uint64)
    lengths = np.array([len(found.token_ids) for found in pieces], np.int16)
    records = Records(hashes, np.clip(pixels, 0, 255).astype(np.uint8), ids, words, lengths)
    nothing = np.full(num_records, None, np.object_)
    some = np.array([colour if i % 10 else None for i, colour in enumerate(colours)], np.object_)
    attributes = {
        "colour": some,
        "kind": np.array(kinds, np.object_),
        "key": np.array(keys, np.object_),
        "empty": nothing,
    }
    return Examples(split, records, keys, texts, nothing, nothing, attributes)


def make_bench(*, shows_colour: bool = True) -> Bench:
    shape = {"vocab_size": TOKENIZER.vocab_size, "mask_token_id": TOKENIZER.mask_id, "pad_token_id": TOKENIZER.pad_id}
    sizes = (("train", 120), ("val", 60), ("test", 100))
    train, val, test = (
        make_examples(split, size, seed, shows_colour=shows_colour) for seed, (split, size) in enumerate(sizes)
    )
    model, untrained = (make_model(seed, **shape).eval() for seed in (0, 1))
    return Bench(model, untrained, TOKENIZER, train, val, test, 0, lambda name, done, total: None)


def way_of(found: AttributeFilling, way: str, shown: str | None) -> FilledWay:
    return next(each for each in found.ways if (each.way, each.shown) == (way, shown))


@pytest.fixture(scope="module")
def result() -> FillResult:
    return fill(make_bench(), FillConfig(attributes=("colour", "key", "empty"), most_values=20))


def test_what_the_picture_shows_is_told_from_it_and_not_from_the_rest_of_the_text(result: FillResult) -> None:
    found = result.attributes[0]
    assert (found.attribute, found.num_values, found.num_train, found.num_test) == ("colour", 4, 108, 90)
    assert found.num_hidden == found.num_test
    test = make_bench().test.attributes["colour"]
    known = [value for value in test if value is not None]
    majority = way_of(found, MAJORITY, None)
    assert majority.accuracy.mean == pytest.approx(np.mean([value == "Red" for value in known]))
    assert majority.ece is None
    for way, shown in ((HISTOGRAM, "image"), (COLOURS, "image"), (COLOURS, "both"), (PRE_TRAINED, "image")):
        assert way_of(found, way, shown).accuracy.mean > 0.9
    for way in (BAG, PRE_TRAINED):
        assert way_of(found, way, "text").accuracy.mean < majority.accuracy.mean + 0.1


def test_what_the_rest_of_the_text_says_is_told_from_it() -> None:
    bench = make_bench()
    for split in (bench.train, bench.val, bench.test):
        # Told by a word of the text that is none of its values'.
        values = {"shirt": "upper body", "shoe": "feet", "belt": "waist"}
        split.attributes["worn"] = np.array([values[text.split()[-1]] for text in split.texts], np.object_)
    found = fill(bench, FillConfig(attributes=("worn",))).attributes[0]
    assert found.num_hidden == 0
    assert way_of(found, BAG, "text").accuracy.mean == 1.0
    assert way_of(found, PRE_TRAINED, "text").accuracy.mean > 0.9
    assert way_of(found, HISTOGRAM, "image").accuracy.mean < 0.65


def test_columns_that_are_no_category_are_passed_over_and_said_so(result: FillResult) -> None:
    assert [found.attribute for found in result.attributes] == ["colour"]
    assert ["key" in result.passed_over[0], "empty" in result.passed_over[1]] == [True, True]
    assert all(sentence in result.verdict() for sentence in result.passed_over)


def test_the_result_becomes_json_tables_and_sentences(result: FillResult) -> None:
    assert json.loads(json.dumps(asdict(result)))["attributes"][0]["attribute"] == "colour"
    table = result.tables()[0]
    assert len({tuple(row) for row in table.rows}) == 1 and len(table.rows) == 15
    difference = way_of(result.attributes[0], COLOURS, "both").above_histogram
    assert difference is not None and difference.low <= difference.mean <= difference.high
    best = way_of(result.attributes[0], COLOURS, "both")
    same = way_of(result.attributes[0], UNTRAINED_COLOURS, "both")
    assert best.above_untrained is not None
    assert best.above_untrained.mean == pytest.approx(best.accuracy.mean - same.accuracy.mean)
    assert sum("against the colour histogram" in sentence for sentence in result.verdict()) >= 2


def test_a_value_that_only_the_hidden_word_tells_is_told_by_nothing() -> None:
    found = fill(make_bench(shows_colour=False), FillConfig(attributes=("colour",))).attributes[0]
    majority = way_of(found, MAJORITY, None).accuracy.mean
    for each in found.ways:
        assert each.accuracy.mean < majority + 0.1


def test_a_set_without_the_attribute_is_an_error() -> None:
    bench = make_bench()
    with pytest.raises(ValueError, match="hue is no attribute of the set; expected one of colour, kind"):
        fill(bench, FillConfig(attributes=("hue",)))
    for split in (bench.train, bench.val, bench.test):
        split.attributes.clear()
    with pytest.raises(ValueError, match="--attribute-columns"):
        fill(bench, FillConfig())


def test_the_report_of_the_command_tells_the_same() -> None:
    bench = make_bench()
    parts = []
    for split in (bench.train, bench.val, bench.test):
        index = np.flatnonzero([value is not None for value in split.attributes["colour"]])
        features = filling_features(bench.model, split.records.take(index), EmbedConfig())
        parts.append((features, list(split.attributes["colour"][index])))
    train, val, test = parts
    head, report = fit_and_report("colour", train, val, test, seed=0)
    told = np.array(head.values)[head.probabilities(test[0]).argmax(1)]
    assert report.accuracy.mean == pytest.approx(np.mean(told == np.array(test[1])))
    assert report.above_histogram.mean == pytest.approx(report.accuracy.mean - report.colour_histogram)
    assert FillingReport.from_facts(json.loads(json.dumps(asdict(report)))) == report
    assert "ECE, 15 bins" in report.lines()[2]
    with pytest.raises(ValueError, match="none was left to calibrate on"):
        fit_and_report("colour", train, (val[0][:0], []), test, seed=0)
