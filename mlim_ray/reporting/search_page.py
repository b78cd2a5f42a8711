"""The page of a search, finished or under way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from mlim_ray.reporting.charts import probe_charts
from mlim_ray.reporting.figures import Command, LinearFigures
from mlim_ray.reporting.importance import interaction_bars, knob_bars, weighty_pairs
from mlim_ray.reporting.interval_chart import arms_chart, differences_chart
from mlim_ray.reporting.page import render_page
from mlim_ray.reporting.parallel_coordinates import parallel_coordinates
from mlim_ray.reporting.run_page import flat, probe_content, yaml_text
from mlim_ray.reporting.search_charts import best_name, search_charts
from mlim_ray.reporting.search_figures import ROLE_NAMES, AccuracyKey, Search, knob_title
from mlim_ray.reporting.trial_table import STATE_NAMES, trial_table
from mlim_ray.reporting.verdict import judge

if TYPE_CHECKING:
    # A page needs the rows, not torch, which they are made with.
    from mlim_ray.evaluation.pictures import ReconstructionRow

REFRESH_S = 30
"""Seconds after which the page of a search that goes on is opened anew by itself."""


def render_search_page(
    *,
    title: str,
    folder: str,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    search: Search,
    commands: Sequence[Command],
    pictures: Mapping[int, Sequence[ReconstructionRow]] | None = None,
    best_yaml: str | None = None,
) -> str:
    """One self-contained HTML page: verdict, confirmation, trials, curves, knobs, pictures, probes, commands.

    Everything that is missing or not finite is shown as a dash or left out with a word; texts are escaped. The page of
    a search that goes on opens itself anew from time to time.

    Args:
        title: name of the search.
        folder: its path.
        config: the resolved config that the trials started from.
        environment: content of `environment.json`; `data` is what was learned from.
        search: its trials, its confirmation, what its knobs are worth.
        commands: to reproduce it, to train the winner in full, to resume.
        pictures: by trial number, from `reconstruction_rows` on one probe set; shown are those of the best trial and of
            the paper's setting.
        best_yaml: content of `best.yaml`, the setting of `search.best`; None while there is none.

    Raises:
        ValueError: pictures of the best trial and of the reference show different records.
    """
    varied = [name for name in search.knobs if _num_values(search, name) > 1]
    pairs = weighty_pairs(search)
    charts = search_charts(search, varied, pairs)
    best = search.best
    probe = None if best is None else best.probe
    best_rows, reference_rows = _rows(search, pictures or {})
    importance = search.importance
    return render_page(
        "search.html.j2",
        charts | ({} if probe is None else probe_charts(probe)),
        title=title,
        folder=folder,
        data=environment.get("data"),
        search=search,
        best=best,
        best_name=best_name(search),
        refresh_s=REFRESH_S if search.is_running else None,
        judgement=judge(search),
        accuracies=_accuracies(search),
        arms=arms_chart(search),
        differences=differences_chart(search),
        table=trial_table(search),
        states=Counter(STATE_NAMES.get(trial.state, trial.state.lower()) for trial in search.trials),
        roles=Counter(ROLE_NAMES[trial.role] for trial in search.trials),
        state_names=STATE_NAMES,
        role_names=ROLE_NAMES,
        failures=[trial for trial in search.trials if trial.state == "FAIL"],
        total_samples=sum(trial.samples for trial in search.trials),
        baselines=_baselines(search),
        parallel=parallel_coordinates(search, varied),
        knobs=[(f"knob-{number}", knob_title(name), name) for number, name in enumerate(varied)],
        pairs=[(f"pair-{number}", *map(knob_title, pair)) for number, pair in enumerate(pairs)],
        fronts=[(f"front-{n}", *pair) for n, pair in enumerate(combinations(search.objectives, 2))],
        knob_bars=[] if importance is None else knob_bars(importance),
        interaction_bars=[] if importance is None else interaction_bars(importance),
        has_curves="curve-score" in charts,
        best_rows=best_rows,
        reference_rows=reference_rows,
        best_yaml=best_yaml,
        commands=commands,
        config=yaml_text(config),
        environment=flat(environment),
        **probe_content(probe, None if best is None else best.linear_probe),
    )


def _rows(
    search: Search, pictures: Mapping[int, Sequence[ReconstructionRow]]
) -> tuple[Sequence[ReconstructionRow], Sequence[ReconstructionRow]]:
    """The best trial's rows and those of the paper's setting, which are empty where it is the best itself."""
    if search.best is None:
        return (), ()
    best = pictures.get(search.best.trial, ())
    reference = search.reference("paper")
    if reference is None or reference is search.best or not pictures.get(reference.trial):
        return best, ()
    rows = pictures[reference.trial]
    if best and [row.record for row in best] != [row.record for row in rows]:
        raise ValueError(
            f"the pictures of trials {search.best.trial} and {reference.trial} show different records; "
            "make both with reconstruction_rows on one probe set"
        )
    return best, rows


def _accuracies(search: Search) -> list[tuple[str, str, float, str, str]]:
    """Linear probe of the best trial: heading, from what, accuracy, baseline to hold it against and its key.

    The mean of the confirmation's seeds where there is one.
    """
    if search.best is None:
        return []
    rows: tuple[tuple[str, str, AccuracyKey, str, str], ...] = (
        ("its linear probe", "picture only", "picture_only", "raw pixels", "raw_pixels"),
        ("the same, with title", "picture and title", "with_title", "text only", "text_only"),
    )
    known = []
    for heading, how, key, baseline, baseline_key in rows:
        accuracy = search.best.accuracy(key)
        if search.confirmation is not None:
            over_seeds = search.confirmation.best.accuracies(key)
            accuracy = sum(over_seeds) / len(over_seeds) if over_seeds else None
        if accuracy is not None:
            known.append((heading, how, accuracy, baseline, baseline_key))
    return known


def _num_values(search: Search, knob: str) -> int:
    return len({str(trial.params[knob]) for trial in search.trials if knob in trial.params})


def _baselines(search: Search) -> LinearFigures | None:
    """The baselines are the same for every trial, so any trial's will do."""
    return next((trial.linear_probe for trial in search.trials if trial.linear_probe is not None), None)
