"""The page of a pre-training run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import yaml

from mlim_ray.reporting.charts import probe_charts, run_charts
from mlim_ray.reporting.evaluations import evaluations_content
from mlim_ray.reporting.figures import (
    Command,
    EvaluationFigures,
    LinearFigures,
    MetricLine,
    ProbeFigures,
    finite,
)
from mlim_ray.reporting.page import render_page
from mlim_ray.reporting.probe_tables import linear_reading, partner_reading, partner_rows, yardsticks
from mlim_ray.reporting.step_scores import step_charts, step_content

if TYPE_CHECKING:
    # A page needs the rows, not torch, which they are made with.
    from mlim_ray.evaluation.cross_modal import CrossModalRow
    from mlim_ray.evaluation.pictures import ReconstructionRow

_CHARTS = (
    ("curve-mlm", "MLM, nats per hidden piece"),
    ("curve-recon", "RECON, squared error per pixel"),
    ("curve-total", "Total loss, weighted"),
    ("curve-rate", "Records per second"),
    ("curve-wait", "Share of time waiting for data"),
    ("curve-learning-rate", "Learning rate"),
    ("curve-gradient", "Gradient norm before clipping"),
)


def render_run_page(
    *,
    title: str,
    run: str,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    metrics: Sequence[MetricLine],
    evaluation: Mapping[str, Any],
    pictures: Sequence[ReconstructionRow],
    cross_modal: Sequence[CrossModalRow] = (),
) -> str:
    """One self-contained HTML page: what was trained, its probes, pictures and titles, curves and config.

    Everything that is missing or not finite is shown as a dash or left out with a word; texts are escaped.

    Args:
        title: name of the run.
        run: path of the run folder, for the commands to run next.
        config: the resolved config.
        environment: content of `environment.json`; `data` is what was learned from.
        metrics: lines of `metrics.jsonl`.
        evaluation: content of `evaluation.json`, an `EvaluationFigures`.
        pictures: from `reconstruction_rows`.
        cross_modal: of the same records, from `cross_modal_rows`; none where it was not made.
    """
    figures = cast(EvaluationFigures, evaluation)
    curves = run_charts(metrics, figures["probe"])
    by_step = evaluation.get("by_step", [])
    others: Sequence[CrossModalRow | None] = cross_modal or [None for _ in pictures]
    return render_page(
        "run.html.j2",
        curves | probe_charts(figures["probe"]) | step_charts(by_step),
        title=title,
        evaluation=figures,
        data=environment.get("data"),
        pictures=list(zip(pictures, others, strict=True)),
        curve_titles=[(name, heading) for name, heading in _CHARTS if name in curves],
        records_per_s=finite(figures["records_per_s"]),
        data_wait_ratio=data_wait_ratio(metrics),
        num_epochs=metrics[-1].get("epoch") if metrics else None,
        commands=_commands(run, environment),
        config=yaml_text(config),
        environment=flat(environment),
        **step_content(by_step),
        **evaluations_content(evaluation.get("evaluations", {}), run),
        **probe_content(figures["probe"], figures["linear_probe"]),
    )


def probe_content(probe: ProbeFigures | None, linear: LinearFigures | None) -> dict[str, Any]:
    """What the templates name about the two probes of one model."""
    return {
        "probe": probe,
        "partner": None
        if probe is None
        else {"mlm": partner_rows(probe, "mlm"), "recon": partner_rows(probe, "recon")},
        "partner_sentences": [] if probe is None else partner_reading(probe),
        "linear": linear,
        "yardsticks": [] if linear is None else yardsticks(linear),
        "linear_sentences": [] if linear is None else linear_reading(linear),
    }


def data_wait_ratio(metrics: Sequence[MetricLine]) -> float | None:
    """Share of the whole run's time spent waiting for data; None without metric lines."""
    waited = total = last = 0.0
    for line in metrics:
        elapsed, ratio = finite(line.get("time/elapsed_s")), finite(line.get("time/data_wait_ratio"))
        if elapsed is None or ratio is None:
            continue
        # The clock starts anew when a run is resumed.
        window = elapsed - last if elapsed > last else elapsed
        waited, total, last = waited + ratio * window, total + window, elapsed
    return waited / total if total > 0 else None


def flat(mapping: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as (dotted name, value) pairs; lists are joined by commas."""
    pairs: list[tuple[str, Any]] = []
    for name, value in mapping.items():
        if isinstance(value, dict):
            pairs += flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list | tuple) else value))
    return pairs


def yaml_text(config: Mapping[str, Any]) -> str:
    """A config as a person reads it, keys in their own order."""
    text: str = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text


def _commands(run: str, environment: Mapping[str, Any]) -> list[Command]:
    data = shlex.quote(str(environment.get("data", "SOURCE")))
    folder, config = shlex.quote(run), shlex.quote(f"{run}/config.yaml")
    return [
        Command("Search the masking for these records:", f"python experiments/tune_mam.py --data {data}"),
        Command(
            "Do this run again with another seed:",
            f"python experiments/pretrain.py --data {data} --config {config} --seed 1",
        ),
        Command(
            "Continue it from its last checkpoint, had it been stopped:",
            f"python experiments/pretrain.py --data {data} --out {folder} --resume",
        ),
        Command(
            "Load the model:",
            f"python -c \"import mlim_ray; print(mlim_ray.load('{run}').fill('a [MASK] title'))\"",
        ),
    ]
