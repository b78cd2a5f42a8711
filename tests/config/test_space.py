"""The space and the score of a search, from text."""

import pytest

from mlim_ray.config import PretrainConfig, SearchConfig, SearchRunConfig, TrainConfig
from mlim_ray.config.score import parse_score
from mlim_ray.config.space import Choice, Interval, parse_space

BASE = PretrainConfig()


def space(*entries: str) -> dict[str, Interval | Choice]:
    return parse_space(entries, BASE, 3e-4)


def test_the_learning_rate_is_searched_around_the_sizes_own() -> None:
    found = space()["train.learning_rate"]
    assert isinstance(found, Interval) and found.log
    assert (found.low, found.high) == pytest.approx((1e-4, 9e-4))


def test_a_range_is_of_whole_numbers_only_where_its_knob_is() -> None:
    found = space("train.batch-size=16..64:log", "train.weight_decay=0..1", "mam.light_probability=0..1")
    assert found["train.batch_size"] == Interval(16.0, 64.0, log=True, is_integer=True)
    assert found["train.weight_decay"] == Interval(0.0, 1.0, log=False)
    assert found["mam.light_probability"] == Interval(0.0, 1.0, log=False)


def test_choices_are_of_their_own_type_and_a_single_one_fixes() -> None:
    found = space("recon.weight=10", "policy=mam", "recon.target=masked", "train.compile=true|false")
    assert found["recon.weight"] == Choice((10,))
    assert found["policy"] == Choice(("mam",))
    assert found["recon.target"] == Choice(("masked",))
    assert found["train.compile"] == Choice((True, False))


def test_the_resolution_is_searched_where_asked_for() -> None:
    found = space("resolution.start_ratio=0.4..1", "resolution.num-stages=1..4", "resolution.small_steps_ratio=0.5|1")
    assert found["resolution.start_ratio"] == Interval(0.4, 1.0, log=False)
    assert found["resolution.num_stages"] == Interval(1.0, 4.0, log=False, is_integer=True)
    assert found["resolution.small_steps_ratio"] == Choice((0.5, 1))
    with pytest.raises(ValueError, match=r"resolution\.start_ratio"):
        space("resolution.start_ratio=0..1")


def test_what_belongs_to_blocks_is_searched_only_where_they_are() -> None:
    assert not any(name.startswith("blockwise.") for name in space())
    found = space("policy=blockwise|mam", "blockwise.image_ratio=0.3..0.5")
    assert found["blockwise.image_ratio"] == Interval(0.3, 0.5, log=False)
    assert found["blockwise.text_ratio"] == Interval(0.05, 0.95, log=False)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("recon.weight", "expected NAME=WHAT"),
        ("feed.kind=stream|resident", "all trials share feed"),
        ("model.size=tiny|base", "all trials share model.size"),
        ("model.cell_size=4|8", "all trials share model.cell_size"),
        ("masking.kind=mam", "mam.image_heavy_ratio"),
        ("mam.depth=0..1", "mam has no such parameter"),
        ("mam.light_probability=0..2", "expected numbers from 0 to 1"),
        ("policy=mam|random", "expected one or some of mam|independent|alternating"),
        ("train.batch_size=0..8", "train.batch_size: given 0"),
        ("train.depth=1..2", "depth"),
        ("recon.weight=5..1", "a lower end below the upper one"),
        ("recon.weight=0..1:log", "above 0 on a log scale"),
        ("recon.weight=1..2:exp", "LOW..HIGH:log"),
        ("recon.target=whole|whole", "each value once"),
        ("recon.target=part", "recon.target: given part"),
    ],
)
def test_what_no_trial_could_run_with_is_refused_by_name(entry: str, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        space(entry)
    assert told in str(caught.value) and entry.partition("=")[0] in str(caught.value)


def test_one_name_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="expected each name once"):
        space("recon.weight=1..2", "recon.weight=3")


def test_a_search_config_checks_its_space_against_its_own_knobs() -> None:
    with pytest.raises(ValueError, match="num_checkpoints_kept"):
        SearchRunConfig(search=SearchConfig(space=("train.num_checkpoints_kept=0..2",)))
    config = SearchRunConfig(
        search=SearchConfig(space=("train.beta1=0.8..0.95",)), train=TrainConfig(learning_rate=1e-3)
    )
    assert config.dimensions["train.beta1"] == Interval(0.8, 0.95, log=False)


def test_a_score_is_a_weighted_sum_or_several() -> None:
    measures = {"probe": 0.5, "mlm": 0.4, "recon": 0.8}
    (one,) = parse_score("0.5*mlm + 0.25*recon+probe")
    assert one.of(measures) == pytest.approx(0.9) and one.name == "0.5*mlm+0.25*recon+probe"
    assert [objective.name for objective in parse_score("mlm,recon")] == ["mlm", "recon"]


@pytest.mark.parametrize("text", ["", "loss", "mlm,", "mlm,mlm", "2*", "-1*mlm", "mlm*2"])
def test_a_score_of_what_is_not_measured_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected one of probe|each objective once"):
        SearchConfig(score=text)
