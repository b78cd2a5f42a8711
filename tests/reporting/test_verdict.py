"""What a search found, in words: named with intervals, open where nothing was found, warnings first."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mlim_ray.reporting.search_figures import Search
from mlim_ray.reporting.verdict import judge
from tests.reporting.made_pages import arm, confirmation, evaluation, search, trial, trials, undecided, with_accuracy


def test_a_confirmed_winner_is_named_with_its_interval() -> None:
    verdict = judge(search(confirmation=confirmation()))
    assert verdict.headline == "Trial 2 wins: score 0.7427, 95 % interval 0.7327 to 0.7527, over 3 fresh seeds."
    assert verdict.details == (
        "Trial 2 scores 0.0223 lower than the paper's setting (95 % interval 0.0141 to 0.0305 lower): a difference.",
        # This one was measured the other way round.
        "Trial 2 scores 0.0623 lower than light-only masking (95 % interval 0.0553 to 0.0693 lower): a difference.",
    )
    assert verdict.caution is not None and "varies by 0.0050 (standard deviation over 3 seeds)" in verdict.caution
    assert [(one.name, one.score) for one in verdict.comparisons] == [
        ("the paper's setting", 0.765),
        ("light-only masking", pytest.approx(0.805)),
    ]


def test_a_reference_can_win() -> None:
    found = confirmation(winner=0)
    found["differences"] = [{"trial": 0, "against": 2, "mean": -0.02, "interval": [-0.03, -0.01], "is_found": True}]
    verdict = judge(search(confirmation=found))
    assert verdict.headline.startswith("The paper's setting wins: score 0.7650, 95 % interval ")
    assert "The paper's setting scores 0.0200 lower than trial 2" in verdict.details[0]


def test_no_difference_found_is_the_answer_itself() -> None:
    verdict = judge(search(confirmation=undecided()))
    assert verdict.headline.startswith(
        "No difference was found between the confirmed settings. Trial 2 has the lowest "
    )
    assert "95 % interval from 0.1023 lower to 0.0577 higher): no difference was found." in verdict.details[0]
    assert "wins" not in " ".join(verdict.sentences)


def test_a_better_single_score_that_was_not_confirmed_is_told() -> None:
    found = [*trials(), trial(5, "both_heavy", score=0.5)]
    sentences = judge(search(found, confirmation=confirmation())).sentences
    assert "Hiding 80 % of both sides had the lowest single score of the search, 0.5000, and was not run again." in (
        sentences
    )
    assert "was not run again" not in " ".join(judge(search(confirmation=confirmation())).sentences)


def test_a_difference_to_one_reference_alone_names_the_other() -> None:
    found = undecided()
    found["differences"][1] |= {"interval": [0.01, 0.11], "is_found": True}
    headline = judge(search(confirmation=found)).headline
    assert headline.startswith(
        "No difference was found between trial 2 and the paper's setting. Trial 2 has the lowest"
    )


@pytest.mark.parametrize(
    ("paper", "agreement"),
    [
        ([0.58, 0.60, 0.60], "agrees"),
        ([0.55, 0.62, 0.69], "unclear"),
        ([0.70, 0.71, 0.73], "disagrees"),
        # Every seed the same few records of 1,024 ahead.
        ([0.62, 0.63, 0.64], "unclear"),
    ],
)
def test_a_disagreement_of_the_scores_over_seeds_comes_first(paper: list[float], agreement: str) -> None:
    found = confirmation()
    found["arms"][0] = arm(0, "paper", 0.76, 0.765, 0.77, linear_picture=paper)
    verdict = judge(search(confirmation=found))
    assert verdict.agreement == agreement
    is_first = "disagree on the winner" in verdict.sentences[0]
    assert is_first == (agreement == "disagrees")
    if is_first:
        assert (
            "trial 0 (paper's setting) first, 0.713 against 0.610 of trial 2, means of 3 seeds" in verdict.sentences[1]
        )
        assert verdict.headline in verdict.sentences[2:]


def test_without_confirmation_one_seed_is_said_and_a_disagreement_comes_first() -> None:
    found = [
        trial(0, "paper", score=0.76, evaluation=with_accuracy(0.70)),
        trial(2, score=0.74, evaluation=with_accuracy(0.60)),
    ]
    verdict = judge(search(found))
    assert verdict.agreement == "disagrees"
    assert "disagree" in verdict.sentences[0]
    assert "trial 0 (paper's setting) first, 0.700 against 0.600 of trial 2" in verdict.sentences[1]
    assert verdict.headline == "Trial 2 has the best score, 0.7400: 2.6 % below the paper's setting."
    assert "one seed" in verdict.sentences[-1]


@pytest.mark.parametrize(("accuracy", "agreement"), [(0.60, "agrees"), (0.62, "unclear"), (0.70, "disagrees")])
def test_an_accuracy_within_noise_decides_nothing(accuracy: float, agreement: str) -> None:
    found = [
        trial(0, "paper", score=0.76, evaluation=with_accuracy(accuracy)),
        trial(2, score=0.74, evaluation=with_accuracy(0.60)),
    ]
    assert judge(search(found)).agreement == agreement


def test_the_best_of_many_accuracies_may_be_chance() -> None:
    def of(num_others: int) -> str:
        others = [trial(n, score=0.8, evaluation=with_accuracy(0.59)) for n in range(3, 2 + num_others)]
        ahead = trial(1, score=0.76, evaluation=with_accuracy(0.65))
        return judge(search([trial(2, score=0.74, evaluation=with_accuracy(0.60)), ahead, *others])).agreement

    # 0.05 apart, a standard error of 0.021: much for one other, little for the best of forty.
    assert (of(1), of(40)) == ("disagrees", "unclear")


def test_a_search_that_the_linear_probe_ranked_is_laid_beside_the_probe_that_masks() -> None:
    found = [
        trial(0, "paper", score=0.40, measures={"probe": 0.5, "linear_picture": 0.40}, evaluation=None),
        trial(2, score=0.35, measures={"probe": 0.6, "linear_picture": 0.35}, evaluation=None),
    ]
    verdict = judge(search(found, objectives=["linear_picture"]))
    assert verdict.agreement == "unclear"
    assert "which masks, ranks trial 0 (paper's setting) first, 0.5000 against 0.6000" in verdict.agreement_sentences[0]


def test_the_verdict_names_a_reference_that_won_and_one_that_failed() -> None:
    found = [
        trial(0, "paper", score=0.7),
        trial(1, "light_only", state="FAIL", score=None),
        trial(2, score=0.8),
    ]
    verdict = judge(search(found))
    assert verdict.headline == "No searched trial beat the paper's setting, score 0.7000."
    assert [(other.name, other.score) for other in verdict.comparisons] == [
        ("the paper's setting", 0.7),
        ("light-only masking", None),
    ]


def test_a_search_under_way_names_no_winner() -> None:
    found = [*trials()[:3], trial(3, state="RUNNING", score=0.6, curve=[(8_000, 0.6)], evaluation=None)]
    verdict = judge(search(found, phase="searching", num_trials=24))
    assert verdict.headline == "The search goes on: 3 of 24 trials ended, 1 running, 20 to come."
    assert verdict.sentences[1].startswith("Best so far: trial 2, score 0.7406, 2.7 % below the paper's setting")
    assert judge(search([], phase="searching", num_trials=24)).sentences == [
        "The search goes on: 0 of 24 trials ended, 0 running, 24 to come."
    ]
    confirming = judge(search(phase="confirming"))
    assert confirming.headline.startswith("All 5 trials ended; ")
    assert "wins" not in " ".join(confirming.sentences)


def test_a_search_without_any_score_says_so() -> None:
    failed = [trial(0, state="FAIL", score=math.nan, curve=[], evaluation=None)]
    assert judge(search(failed)).headline == "No trial came to its end with a score."


def test_trials_that_none_beats_in_all_objectives_are_on_the_front() -> None:
    points = [(0.5, 0.9), (0.6, 0.6), (0.9, 0.5), (0.7, 0.7), (0.5, 0.95)]
    found = [trial(n, score=sum(point) / 2, objectives=point) for n, point in enumerate(points)]
    found.append(trial(5, state="PRUNED", score=0.1, objectives=(0.1, 0.1)))
    found.append(trial(6, score=0.2, objectives=(0.2, None)))
    of = search(found, objectives=["mlm", "recon"])
    assert {one.trial for one in of.front()} == {0, 1, 2}
    assert "Trials 1, 0, 2 are on the front: none is beaten in all of mlm and recon." in " ".join(judge(of).sentences)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"winner": 7}, r"names the trials \[0, 1, 2, 7\] and has the arms \[0, 1, 2\]"),
        ({"arms": [], "differences": [], "winner": None}, "expected one for each"),
        ({"arms": [arm(9, "searched", 0.1, 0.2)], "differences": [], "winner": 9}, r"settings of trials \[9\]"),
    ],
)
def test_a_confirmation_of_unknown_trials_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Search.of(trials(), confirmation=confirmation(**changes))


def test_the_accuracy_of_a_trial_is_taken_from_its_last_rung_where_it_was_not_evaluated() -> None:
    of = search([trial(2, evaluation=None, measures={"linear_picture": 0.25}), trial(3, evaluation=evaluation())])
    assert [one.accuracy("picture_only") for one in of.trials] == [0.75, 0.635]
    assert [one.accuracy("with_title") for one in of.trials] == [None, 0.823]
