"""Masking settings by name, and configs of comparisons."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlim_ray.config import AlternatingConfig, IndependentConfig, MamConfig
from mlim_ray.config.compare import CompareConfig, CompareRunConfig
from mlim_ray.config.evaluate import EvaluateConfig
from mlim_ray.config.masking_arms import masking_arm
from mlim_ray.config.transfer import TransferRunConfig

OWN = IndependentConfig(image_ratio=0.33)


def test_names_stand_for_settings() -> None:
    assert masking_arm("mam", OWN) == MamConfig() and masking_arm("alternating", OWN) == AlternatingConfig()
    assert masking_arm("mam-80", OWN) == MamConfig() and masking_arm("alternating-80", OWN) == AlternatingConfig()
    assert masking_arm("mam-60", OWN) == MamConfig(image_heavy_ratio=0.6, text_heavy_ratio=0.6)
    assert masking_arm("own", OWN) is OWN


@given(st.integers(1, 100))
def test_a_per_cent_is_a_ratio(per_cent: int) -> None:
    found = masking_arm(f"independent-{per_cent}", OWN)
    assert isinstance(found, IndependentConfig)
    assert found.image_ratio == found.text_ratio == pytest.approx(per_cent / 100)


@pytest.mark.parametrize("name", ["", "independent", "independent-0", "mam-101", "mam-", "MAM", "mam-5x", "whole"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"given .*, expected mam, alternating, .*independent-50"):
        masking_arm(name, OWN)
    with pytest.raises(ValueError, match="arms: given"):
        CompareConfig(arms=("mam", name))


def test_a_cell_differs_in_masking_and_seed_alone() -> None:
    config = CompareRunConfig.model_validate({"train": {"seed": 5}, "compare": {"num_seeds": 2}})
    assert list(config.seeds) == [5, 6]
    cell = config.cell("independent-50", 6)
    assert (cell.masking, cell.train.seed) == (IndependentConfig(image_ratio=0.5, text_ratio=0.5), 6)
    same = cell.model_copy(update={"masking": config.masking, "train": config.train})
    assert same.model_dump() == config.model_dump(exclude={"compare"})


def test_a_masking_that_nothing_takes_up_is_refused() -> None:
    with pytest.raises(ValueError, match="add own to --compare.arms"):
        CompareRunConfig(masking=OWN)
    assert CompareRunConfig(masking=OWN, compare=CompareConfig(arms=("mam", "own"))).cell("own", 0).masking == OWN


def test_tasks_are_shortened_only_where_asked() -> None:
    assert CompareConfig(tasks=("retrieval",)).evaluation == EvaluateConfig(tasks=("retrieval",))
    own, short = EvaluateConfig(), CompareConfig(task_records=100, fine_tune_epochs=0.5, match=("label",)).evaluation
    assert {short.classification.num_train, short.retrieval.num_train, short.fill.num_train} == {100}
    fine_tunes = (short.classification.fine_tune, short.retrieval.contrastive, short.pairs.fine_tune)
    assert {fine_tune.num_epochs for fine_tune in fine_tunes} == {0.5}
    assert (short.pairs.match, short.pairs.num_train_positives) == (("label",), own.pairs.num_train_positives)
    # What figures are of stays the same.
    assert (short.num_test, short.classification.num_test, short.retrieval.num_records, short.fill.num_held_out) == (
        own.num_test,
        own.classification.num_test,
        own.retrieval.num_records,
        own.fill.num_held_out,
    )


def test_settings_that_say_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="mam is given twice"):
        CompareConfig(arms=("mam", "alternating", "mam"))
    with pytest.raises(ValueError, match="expected 8 or more"):
        TransferRunConfig()
    arms = {"arms": tuple(f"independent-{i}" for i in range(1, 9))}
    with pytest.raises(ValueError, match="expected two sizes"):
        TransferRunConfig.model_validate({"compare": arms, "model": {"size": "small"}})
    config = TransferRunConfig.model_validate({"compare": arms})
    assert "transfer" not in config.cell("independent-1", 0).model_dump()
