"""The page of a search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlim_ray.reporting.charts import probe_charts, search_charts
from mlim_ray.reporting.figures import Command, LinearFigures, Search, at_paper_ratio
from mlim_ray.reporting.page import render_page
from mlim_ray.reporting.run_page import flat, probe_content, yaml_text
from mlim_ray.reporting.verdict import judge

if TYPE_CHECKING:
    # A page needs the rows, not torch, which they are made with.
    from mlim_ray.evaluation.pictures import ReconstructionRow

STATES = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "unfinished"}


def render_search_page(
    *,
    title: str,
    search: str,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    trials: Sequence[Mapping[str, Any]],
    winner: int,
    verdict: Sequence[str],
    rungs: Sequence[int],
    pictures: Mapping[int, Sequence[ReconstructionRow]],
    best_yaml: str,
    next_command: str,
) -> str:
    """One self-contained HTML page: verdict, trials, curves, knobs, pictures, the winner's probes, best.yaml.

    Everything that is missing or not finite is shown as a dash or left out with a word; texts are escaped.

    Args:
        title: name of the search.
        search: path of its folder.
        config: the resolved config that the trials started from.
        environment: content of `environment.json`; `data` is what was learned from.
        trials: mappings with the fields of `Trial`.
        winner: number of the winning trial.
        verdict: sentences, the most important first; see `verdict.judge`.
        rungs: samples at which trials are compared.
        pictures: by trial number, from `reconstruction_rows` on one probe set; shown are the winner's and
            those of the paper's setting.
        best_yaml: content of `best.yaml`.
        next_command: the command to run next.

    Raises:
        ValueError: the winner did not run to the end, or its pictures show other records than the
            reference's.
    """
    found = Search.of(trials, winner, rungs)
    names = list(dict.fromkeys(name for trial in found.trials for name in trial.params))
    knobs = [name for name in names if _num_values(found, name) > 1]
    charts = search_charts(found, knobs)
    probe = found.winner.probe
    best_rows, reference_rows = _rows(found, pictures)
    return render_page(
        "search.html.j2",
        charts | ({} if probe is None else probe_charts(probe)),
        title=title,
        folder=search,
        data=environment.get("data"),
        winner=found.winner,
        verdict=verdict,
        judgement=judge(found),
        trials=found.ranked() + [trial for trial in found.trials if not trial.is_ranked],
        states=Counter(STATES.get(trial.state, trial.state.lower()) for trial in found.trials),
        state_names=STATES,
        total_samples=sum(trial.samples for trial in found.trials),
        at_paper_ratio=at_paper_ratio,
        baselines=_baselines(found),
        knob_names=names,
        knobs=knobs,
        rungs=rungs,
        has_curves="curve-score" in charts,
        best_rows=best_rows,
        reference_rows=reference_rows,
        best_yaml=best_yaml,
        commands=[Command("Train the winner's setting in full:", next_command)],
        config=yaml_text(config),
        environment=flat(environment),
        **probe_content(probe, found.winner.linear_probe),
    )


def _rows(
    search: Search, pictures: Mapping[int, Sequence[ReconstructionRow]]
) -> tuple[Sequence[ReconstructionRow], Sequence[ReconstructionRow]]:
    """The winner's rows and those of the paper's setting, which are empty where it is the winner itself."""
    best = pictures.get(search.winner.trial, ())
    reference = search.reference("paper")
    if reference is None or reference is search.winner or not pictures.get(reference.trial):
        return best, ()
    rows = pictures[reference.trial]
    if best and [row.record for row in best] != [row.record for row in rows]:
        raise ValueError(
            f"the pictures of trials {search.winner.trial} and {reference.trial} show different records; "
            "make both with reconstruction_rows on one probe set"
        )
    return best, rows


def _num_values(search: Search, knob: str) -> int:
    return len({trial.params[knob] for trial in search.trials if knob in trial.params})


def _baselines(search: Search) -> LinearFigures | None:
    """The baselines are the same for every trial, so any trial's will do."""
    return next((trial.linear_probe for trial in search.trials if trial.linear_probe is not None), None)
