"""The studies of a search: what trials they give out, over any number of starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mlim_ray.config import MamConfig, SearchConfig, SearchRunConfig, TrainConfig
from mlim_ray.pipelines.search.space import REFERENCES, reference_parameters, trial_config
from mlim_ray.pipelines.search.study import (
    Arm,
    Begun,
    ConfirmationStudy,
    SearchStudy,
    TrialStudy,
    arm_of,
    reason_of,
    rungs_of,
    seed_of,
)


def config(**search: object) -> SearchRunConfig:
    return SearchRunConfig(search=SearchConfig(**search), train=TrainConfig(learning_rate=1e-3, seed=5))  # type: ignore[arg-type]


def search_study(folder: Path, base: SearchRunConfig) -> SearchStudy:
    return SearchStudy(storage(folder), base, lambda: None)


def storage(folder: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(folder / "study.log")))


def value_of(begun: Begun) -> float:
    """A toy objective that depends on the parameters alone."""
    return sum(value for value in begun.parameters.values() if isinstance(value, float)) / 10


def run(study: TrialStudy, begun: Begun) -> None:
    study.report(begun.number, 100, {"probe": value_of(begun), "mlm": 0.1 * begun.number, "recon": 0.5})
    study.finish(begun.number, TrialState.COMPLETE)


def run_all(study: TrialStudy) -> None:
    for number in study.unfinished():
        run(study, study.take_up(number))
    while (begun := study.begin()) is not None:
        run(study, begun)


def table(study: TrialStudy) -> list[tuple[object, ...]]:
    return [(trial.number, trial.state, trial.params, trial.values, trial.user_attrs) for trial in study.trials()]


def test_the_references_come_first_as_they_are_named(tmp_path: Path) -> None:
    study = search_study(tmp_path, config(num_trials=7))
    run_all(study)
    assert [trial.user_attrs["role"] for trial in study.trials()] == [*REFERENCES, *["searched"] * 3]
    configs = [trial_config(config(), trial.user_attrs["parameters"]) for trial in study.trials()]
    paper, light, both, alternating = (each.masking for each in configs[:4])
    assert paper.model_dump() == pytest.approx(MamConfig().model_dump())
    assert (light.image_heavy_probability, light.text_heavy_probability) == (0.0, 0.0)
    assert (both.kind, both.image_ratio, both.text_ratio) == ("independent", 0.8, 0.8)
    assert (alternating.kind, alternating.image_heavy_probability, alternating.text_heavy_ratio) == (
        "alternating",
        0.5,
        0.8,
    )
    assert all(each.recon.target == "whole" and each.recon.weight == 10.0 for each in configs[:4])


def test_a_trial_has_only_what_its_policy_has(tmp_path: Path) -> None:
    study = search_study(tmp_path, config(num_trials=24))
    run_all(study)
    policies = set()
    for trial in study.trials():
        parameters = trial.user_attrs["parameters"]
        policies.add(parameters["policy"])
        prefixes = {name.partition(".")[0] for name in parameters} - {"policy", "recon", "train"}
        assert prefixes == {parameters["policy"]}
        assert trial_config(config(), parameters).masking.kind == parameters["policy"]
    assert policies == {"mam", "independent", "alternating"}


def test_a_restricted_space_holds_for_all_but_the_references(tmp_path: Path) -> None:
    base = config(num_trials=9, space=("policy=mam", "recon.weight=3", "train.batch_size=8..64", "recon.target=whole"))
    study = search_study(tmp_path, base)
    run_all(study)
    for trial in study.trials():
        parameters = trial.user_attrs["parameters"]
        # What the space fixes, it fixes for the references too; their policy is what they are.
        assert parameters["recon.weight"] == 3
        if trial.user_attrs["role"] == "searched":
            assert parameters["policy"] == "mam" and 8 <= parameters["train.batch_size"] <= 64
            assert trial_config(base, parameters).train.batch_size == parameters["train.batch_size"]
    # The sampler is not told of references that its space does not hold.
    assert study.trials()[2].params == {} and study.trials()[0].params != {}


def test_parts_of_the_model_and_blocks_can_be_searched(tmp_path: Path) -> None:
    space = ("policy=blockwise", "model.embedder.kind=linear_patches|deep_cnn", "model.num_joint_layers=1..2")
    base = config(num_trials=12, space=space)
    study = search_study(tmp_path, base)
    run_all(study)
    configs = [trial_config(base, trial.user_attrs["parameters"]) for trial in study.trials()]
    assert all(each.masking.kind == "blockwise" for each in configs[len(REFERENCES) :])
    assert {each.model.embedder.kind for each in configs[len(REFERENCES) :]} == {"linear_patches", "deep_cnn"}
    assert {each.model.num_joint_layers for each in configs[len(REFERENCES) :]} == {1, 2}
    # The references keep the base's own parts.
    assert {each.model.embedder.kind for each in configs[: len(REFERENCES)]} == {"shallow_cnn"}


@settings(max_examples=15, deadline=None)
@given(stops=st.lists(st.integers(0, 11), max_size=6), partly=st.booleans())
def test_any_number_of_starts_gives_the_same_trials(
    tmp_path_factory: pytest.TempPathFactory, stops: list[int], partly: bool
) -> None:
    whole = search_study(tmp_path_factory.mktemp("whole"), config(num_trials=12))
    run_all(whole)
    folder = tmp_path_factory.mktemp("stopped")
    for stop in sorted(stops):
        study = search_study(folder, config(num_trials=12))
        for number in study.unfinished():
            run(study, study.take_up(number))
        while len(study.trials()) < stop and (begun := study.begin()) is not None:
            run(study, begun)
        begun = study.begin()
        if partly and begun is not None:
            study.report(begun.number, 100, {"probe": value_of(begun), "mlm": 0.1 * begun.number, "recon": 0.5})
    study = search_study(folder, config(num_trials=12))
    run_all(study)
    assert table(study) == table(whole)


def killed_at_each_line(path: Path) -> Iterator[bytes]:
    """The journal as a driver that died after each of its lines left it."""
    lines = path.read_bytes().splitlines(keepends=True)
    for number in range(1, len(lines) + 1):
        yield b"".join(lines[:number])


def test_a_driver_that_died_after_any_write_leaves_a_study_that_ends_the_same(tmp_path: Path) -> None:
    whole = search_study(tmp_path, config(num_trials=6))
    run_all(whole)
    expected = table(whole)
    for number, content in enumerate(killed_at_each_line(tmp_path / "study.log")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "study.log").write_bytes(content)
        study = search_study(folder, config(num_trials=6))
        run_all(study)
        assert table(study) == expected, content.decode().splitlines()[-1]


def test_more_trials_are_those_that_a_larger_search_would_have_had(tmp_path: Path) -> None:
    larger = search_study(tmp_path, config(num_trials=12))
    run_all(larger)
    folder = tmp_path / "grown"
    folder.mkdir()
    run_all(search_study(folder, config(num_trials=7)))
    grown = search_study(folder, config(num_trials=12))
    assert not grown.is_complete
    run_all(grown)
    assert grown.is_complete and table(grown) == table(larger)


def test_several_objectives_make_a_front(tmp_path: Path) -> None:
    study = search_study(tmp_path, config(num_trials=6, score="mlm,recon"))
    run_all(study)
    assert [trial.values for trial in study.trials()] == [[pytest.approx(0.1 * number), 0.5] for number in range(6)]


def test_a_failed_trial_keeps_its_reason_and_what_it_reached(tmp_path: Path) -> None:
    study = search_study(tmp_path, config(num_trials=2))
    begun = study.begin()
    assert begun is not None
    study.report(begun.number, 100, {"probe": 0.5, "mlm": 0.4, "recon": 0.6})
    study.finish(begun.number, TrialState.FAIL, "OutOfMemoryError: 7 GiB")
    (trial,) = study.trials()
    assert trial.state == TrialState.FAIL and reason_of(trial) == "OutOfMemoryError: 7 GiB"
    assert rungs_of(trial) == {100: {"probe": 0.5, "mlm": 0.4, "recon": 0.6}}


def arms(*trials: int) -> list[Arm]:
    parameters = reference_parameters("paper", config(), config().dimensions)
    return [Arm(trial, "searched", parameters) for trial in trials]


def test_every_arm_runs_with_every_fresh_seed_once(tmp_path: Path) -> None:
    study = ConfirmationStudy(storage(tmp_path), config(), arms(3, 7), lambda: None)
    run_all(study)
    assert [(arm_of(trial), seed_of(trial)) for trial in study.trials()] == [
        (3, 6),
        (7, 6),
        (3, 7),
        (7, 7),
        (3, 8),
        (7, 8),
    ]
    again = ConfirmationStudy(storage(tmp_path), config(), arms(9, 7), lambda: None)
    assert not again.is_complete
    run_all(again)
    assert [(arm_of(trial), seed_of(trial)) for trial in again.trials()[6:]] == [(9, 6), (9, 7), (9, 8)]
