"""Configs as YAML files: round trips, best.yaml, and files that are refused."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlim_ray.config import (
    AlternatingConfig,
    IndependentConfig,
    MamConfig,
    MlmConfig,
    ModelConfig,
    PrepareConfig,
    PretrainConfig,
    ReconConfig,
    SearchRunConfig,
    TrainConfig,
)
from mlim_ray.config.files import best_parts, best_text, config_text, parse_config

RATIO = st.floats(0, 1)


@given(
    masking=st.one_of(
        st.builds(IndependentConfig, image_ratio=RATIO, text_ratio=RATIO),
        st.builds(AlternatingConfig, image_heavy_probability=RATIO, image_heavy_ratio=RATIO),
    ),
    rate=st.one_of(st.just("auto"), st.floats(1e-12, 1e3)),
    column=st.one_of(st.none(), st.sampled_from(["t\u00edtulo", "yes", "1e3", "2020-01-01", "a: b", "null", "#x"])),
    colour=st.tuples(*[st.integers(0, 255)] * 3),
)
def test_a_written_config_is_read_back_unchanged(masking: Any, rate: Any, column: Any, colour: Any) -> None:
    config = SearchRunConfig(
        masking=masking,
        train=TrainConfig(learning_rate=rate),
        prepare=PrepareConfig(text_column=column, background_colour=colour),
    )
    assert parse_config(config_text(config).encode(), "config.yaml", SearchRunConfig()) == config


def test_a_written_config_keeps_the_order_of_its_classes() -> None:
    text = config_text(PretrainConfig())
    sections = [line[:-1] for line in text.splitlines() if not line.startswith(" ")]
    assert sections == list(PretrainConfig.model_fields)


WINNER = PretrainConfig(
    masking=MamConfig(image_heavy_ratio=0.5),
    mlm=MlmConfig(weight=2.0),
    recon=ReconConfig(weight=30.0),
    model=ModelConfig(size="tiny", dropout_ratio=0.25),
    train=TrainConfig(learning_rate=0.004, num_steps=9),
)


BEST = best_text(WINNER).encode()


def test_best_has_a_method_and_a_size() -> None:
    parts = yaml.safe_load(BEST)
    assert parts == best_parts(WINNER)
    assert {name: list(part) for name, part in parts.items()} == {
        "method": ["masking", "resolution", "mlm", "recon", "itm", "itc", "balance"],
        "size": ["model", "train"],
    }
    assert parts["size"]["train"] == {"learning_rate": 0.004}


@pytest.mark.parametrize("size", [None, "tiny"])
def test_best_at_its_own_size_carries_both_parts(size: str | None) -> None:
    loaded = parse_config(BEST, "best.yaml", PretrainConfig(train=TrainConfig(batch_size=8)), size)
    assert best_parts(loaded) == best_parts(WINNER)
    assert loaded.train == TrainConfig(batch_size=8, learning_rate=0.004)


def test_best_at_another_size_carries_the_method_only() -> None:
    loaded = parse_config(BEST, "best.yaml", PretrainConfig(), "base")
    assert best_parts(loaded)["method"] == best_parts(WINNER)["method"]
    assert (loaded.model, loaded.train) == (ModelConfig(), TrainConfig())


def test_a_whole_config_at_another_size_leaves_out_what_belongs_to_the_size() -> None:
    prepare = PrepareConfig(image_size=32, image_encoding="raw", max_tokens=30)
    content = config_text(WINNER.model_copy(update={"prepare": prepare})).encode()
    loaded = parse_config(content, "config.yaml", PretrainConfig(), "base")
    assert loaded.prepare == PrepareConfig(max_tokens=30)
    assert loaded.train == TrainConfig(num_steps=9) and loaded.masking == WINNER.masking
    assert loaded.model == ModelConfig()


def loaded_from(text: str, base: PretrainConfig | None = None) -> PretrainConfig:
    return parse_config(text.encode(), "some.yaml", base or PretrainConfig())


def test_what_a_file_leaves_out_comes_from_the_base() -> None:
    base = PretrainConfig(masking=MamConfig(image_heavy_ratio=0.5), train=TrainConfig(batch_size=8))
    same = loaded_from("masking: {text_light_ratio: 0.25}\ntrain: {learning_rate: 1e-3}", base)
    assert same.masking == MamConfig(image_heavy_ratio=0.5, text_light_ratio=0.25)
    assert same.train == TrainConfig(batch_size=8, learning_rate=0.001)
    other = loaded_from("masking: {kind: alternating}", base)
    assert other.masking == AlternatingConfig()
    assert loaded_from("feed: {kind: stream}").feed.num_lanes == 16
    assert loaded_from("", base) == base


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("trian: {seed: 1}", "trian: unknown key; did you mean train?"),
        ("train: {sede: 1}", "train.sede: unknown key; did you mean seed?"),
        ("masking: {kind: independent, text_heavy_ratio: 0.1}", "masking.text_heavy_ratio: unknown key"),
        ("masking: {kind: mum}", "masking: given kind mum, expected one of mam, independent, alternating"),
        (
            "masking: {text_light_ratio: 2}",
            "masking.text_light_ratio: given 2, expected a number from 0 to 1",
        ),
        ("train: {num_steps: true}", "train.num_steps: given true, expected a whole number of at least 1"),
        ("train: {num_steps: 2.0}", "train.num_steps: given 2.0, expected a whole number of at least 1"),
        ("train: {learning_rate: .nan}", "train.learning_rate: given nan, expected a number above 0 or auto"),
        ("prepare: {background_colour: [1, 2]}", "prepare.background_colour: given"),
        (
            "prepare: {image_size: 4}",
            "prepare.image_size: given 4, expected a whole number from 8 to 2048 or auto",
        ),
        ("train: 3", "train: given 3, expected a section with keys of its own"),
        ("masking:", "masking: given none, expected"),
        ("mlm: {weight: 0}\nrecon: {weight: 0}", "mlm.weight and recon.weight are both 0"),
        (
            "train: {seed: 1, sede: 2}\nmlm: {w: 1}",
            "mlm.w: unknown key; known: weight (and 1 more)",
        ),
        ("- a\n- b", "given a,b, expected sections with keys"),
        ("train: [", "cannot be read as YAML in line 1"),
        ("train: {seed: 1}\ntrain: {seed: 2}", "cannot be read as YAML in line 2: key train is given twice"),
        ("a: &x [1]\nb: *x", "cannot be read as YAML in line 2: aliases are not accepted"),
        ("a: !!python/object/apply:os.getcwd []", "cannot be read as YAML in line 1"),
        ("[" * 5000, "cannot be read as YAML"),
        ("# " + "x" * (1 << 20), "larger than"),
        (
            "method: {train: {seed: 1}}",
            "method.train: unknown key; known in a best.yaml: masking, resolution, mlm, recon",
        ),
        ("size: {train: {seed: 1}}", "size.train.seed: unknown key; known in a best.yaml: learning_rate"),
        ("method: {}\ntrain: {}", "train: unknown key; known in a best.yaml: method, size"),
        ("method: 3", "method: given 3, expected"),
        ("method: {masking: {text: 1}}", "masking.text: unknown key"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_file_and_key(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as refused:
        loaded_from(text)
    line = str(refused.value)
    assert line.startswith(f"some.yaml: {problem}"), line
    assert "\n" not in line and len(line) < 400


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be read as YAML"):
        parse_config(b"train: \xff\xfe\x00", "some.yaml", PretrainConfig())
