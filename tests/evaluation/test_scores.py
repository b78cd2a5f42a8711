"""Single numbers from the `evaluation.json` of a run."""

from __future__ import annotations

import pytest

from mlim_ray.evaluation.classification_result import ClassificationResult, ClassificationRow
from mlim_ray.evaluation.intervals import Estimate
from mlim_ray.evaluation.plain import plain_result
from mlim_ray.evaluation.scores import LIMIT, scores_of
from tests.evaluation.made_scores import made_evaluation, made_task


def test_the_probes_scores() -> None:
    scores = {(one.task, one.name): one for one in scores_of(made_evaluation())}
    assert list(scores) == [
        ("partner probe", "MLM"),
        ("partner probe", "RECON"),
        ("linear probe", "picture only"),
        ("linear probe", "with title"),
    ]
    mlm, recon, picture, titled = scores.values()
    assert mlm.value == pytest.approx(3.0 / 6.0) and mlm.baselines == {"word frequencies alone": 1.0, LIMIT: 1.5 / 6.0}
    assert recon.value == pytest.approx(0.1 / 0.2) and recon.baselines == {"mean colour alone": 1.0}
    assert (mlm.higher_is_better, picture.higher_is_better) == (False, True)
    assert picture.value == 0.7
    assert picture.baselines == {
        "majority label": 0.1,
        "raw pixels": 0.69,
        "PCA of the pixels": 0.6,
        "untrained encoder": 0.5,
    }
    assert titled.baselines == {"text only": 0.9}


def test_what_is_missing_has_no_score() -> None:
    assert scores_of({}) == []
    evaluation = made_evaluation(linear_probe=None)
    evaluation["probe"]["at"][0]["recon_of_hidden"] = None
    assert [one.name for one in scores_of(evaluation)] == ["MLM"]


def test_tasks_scores_by_source_without_counts() -> None:
    found = {"shop": {"tasks": {"classification": made_task()}}, "other": {"tasks": {"classification": made_task(0.5)}}}
    scores = [one for one in scores_of(made_evaluation(evaluations=found)) if "probe" not in one.task]
    assert [(one.task, one.name, one.value, one.higher_is_better) for one in scores] == [
        (f"classification on {source}", name, value, higher)
        for source, accuracy in (("shop", 0.6), ("other", 0.5))
        for name, value, higher in (
            ("this encoder: accuracy", accuracy, True),
            ("this encoder: median rank", 4.5, False),
            ("raw pixels: accuracy", 0.55, True),
        )
    ]


def test_what_a_run_chose_for_itself_is_no_part_of_a_name() -> None:
    def names(chosen: str | None) -> list[str]:
        half = Estimate(0.5, 0.4, 0.6)
        row = ClassificationRow("raw pixels", "image", "k-NN", half, half, chosen)
        result = ClassificationResult("label", 9, 9, 9, 2, 0, 0, 0, 0, 0, [row], [])
        tasks = {"classification": plain_result(result)}
        return [one.name for one in scores_of({"evaluations": {"shop": {"tasks": tasks}}})]

    assert names("k=5") == ["image, raw pixels, k-NN: accuracy", "image, raw pixels, k-NN: macro F1"]
    assert names("k=5") == names("k=20") == names(None)
