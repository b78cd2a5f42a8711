"""The partner probe with intervals over records: does a model use the other side, also for titles it has never seen?

Legend: B records.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlim_ray.config.partner import PartnerConfig
from mlim_ray.data.manifest import Statistics
from mlim_ray.evaluation.bench import Bench
from mlim_ray.evaluation.bootstrap import bootstrap
from mlim_ray.evaluation.intervals import Estimate
from mlim_ray.evaluation.limits import ProbeLimits, probe_limits
from mlim_ray.evaluation.partner_probe import (
    HIDDEN_RATIOS,
    PAPER_RATIO,
    RecordLosses,
    losses_of_records,
    make_probe_set,
)
from mlim_ray.evaluation.repeats import text_digests
from mlim_ray.evaluation.result import Cell, ResultTable

PARTNERS = {"paired": "true", "shuffled": "another's", "blank": "none"}
"""name in a result, and in a table"""
_SIDES = {"mlm": ("picture", "words", "nats per hidden piece"), "recon": ("title", "cells", "squared error per pixel")}
"""loss, its partner, what is hidden, and its unit"""

_FEWEST_RECORDS = 10
"""of seen or of unseen titles; of fewer no figure is given"""

Losses = dict[str, RecordLosses]


@dataclass(frozen=True)
class PartnerFigures:
    """Losses of one side at one hidden ratio, over some records."""

    side: str
    """mlm or recon"""
    hidden_ratio: float
    losses: dict[str, Estimate]
    """by partner: paired, shuffled, blank"""
    differences: dict[str, Estimate]
    """what the loss is higher by with another's partner (shuffled), and with none (blank)"""
    limit: float | None = None
    """what no model can beat with the true partner; known for the generated catalogue"""

    def row(self, first: dict[str, Cell]) -> dict[str, Cell]:
        """The figures as columns of a table, behind the `first` ones."""
        losses: dict[str, Cell] = {shown: self.losses[partner] for partner, shown in PARTNERS.items()}
        differences = {f"{PARTNERS[partner]} - true": found for partner, found in self.differences.items()}
        return first | losses | differences


@dataclass(frozen=True)
class TitleFigures:
    """Losses at the paper's hidden ratio, of records whose title was pre-trained on, or was not."""

    seen: bool
    num_records: int
    figures: list[PartnerFigures]
    """one a side; none where there are too few records"""


@dataclass(frozen=True)
class PartnerResult:
    """What the probe found."""

    num_records: int
    num_titles: int
    """different ones; where they are few, records are no independent evidence of what titles do"""
    score: float | None
    """as a run's own (contract C5); None where the set has no statistics"""
    figures: list[PartnerFigures]
    by_title: list[TitleFigures]
    """empty where it is not known what was pre-trained on"""

    def tables(self) -> list[ResultTable]:
        """A table a side, and one of titles that were seen in pre-training and unseen ones."""
        tables = []
        shared = f", which share {self.num_titles:,} titles" if self.num_titles < self.num_records else ""
        for side, (partner, hidden, unit) in _SIDES.items():
            of_side = [figures for figures in self.figures if figures.side == side]
            rows = [f.row({"hidden": f"{f.hidden_ratio:.0%}"}) for f in of_side]
            caption = (
                f"{side.upper()} in {unit}, with the record's own {partner}, another record's and none, on "
                f"{self.num_records:,} test records{shared}; lower is better, and a model that uses the {partner} has "
                "a higher loss without it."
            )
            if any(figures.limit is not None for figures in of_side):
                for row, figures in zip(rows, of_side, strict=True):
                    row["limit"] = figures.limit
                caption += " No model can beat the limit, as the catalogue's generator is known."
            tables.append(ResultTable(f"Partner probe: hidden {hidden} with the {partner}", caption, rows))
        rows = [
            f.row({"loss": side.upper(), "title": "seen" if part.seen else "unseen", "records": part.num_records})
            for side in _SIDES
            for part in self.by_title
            for f in part.figures
            if f.side == side
        ]
        if rows:
            caption = (
                f"With {PAPER_RATIO:.0%} hidden, of records whose title some pre-training record has too, and of those "
                "whose title is new: what is learned by heart helps with the first alone."
            )
            tables.append(ResultTable("Partner probe: seen and unseen titles", caption, rows))
        return tables

    def verdict(self) -> list[str]:
        """Whether each partner is used at the paper's ratio: against another record's, which shows as much."""
        sentences = [_told(f) for f in self.figures if f.hidden_ratio == PAPER_RATIO]
        for part in self.by_title:
            if part.seen:
                continue
            sentences += [_told(f, ", of titles that pre-training never saw") for f in part.figures]
            if not part.figures:
                sentences.append(
                    f"Pre-training never saw the titles of {part.num_records} of {self.num_records} records: too few "
                    "to tell what is used from what was learned by heart."
                )
        return sentences


def partner(bench: Bench, config: PartnerConfig) -> PartnerResult:
    """Probe the test records at every hidden ratio.

    Raises:
        ValueError: all of them have the same title.
    """
    examples = bench.test.take(np.arange(min(config.num_records, len(bench.test))))
    statistics = bench.statistics
    probe = make_probe_set(
        examples.records,
        num_cells=bench.model.config.num_cells,
        seed=config.seed,
        unigram_entropy=np.nan if statistics is None else statistics.unigram_entropy,
        pixel_variance=np.nan if statistics is None else statistics.pixel_variance,
    )
    limits = probe_limits(probe, examples.texts) if bench.is_generated else None
    at: dict[float, Losses] = {}
    for done, ratio in enumerate(HIDDEN_RATIOS):
        bench.on_progress("partner", done, len(HIDDEN_RATIOS))
        at[ratio] = losses_of_records(bench.model, probe, ratio)
    bench.on_progress("partner", len(HIDDEN_RATIOS), len(HIDDEN_RATIOS))
    everything = np.arange(len(examples))
    figures = [
        _figures(side, ratio, at[ratio], everything, None if limits is None else _limit(limits, side, ratio))
        for side in _SIDES
        for ratio in HIDDEN_RATIOS
    ]
    seen_B = None if bench.title_seen_R is None else bench.title_seen_R[: len(examples)]
    num_titles = len(np.unique(text_digests(examples.records)))
    return PartnerResult(
        len(examples), num_titles, _score(at, statistics), figures, list(_by_title(at[PAPER_RATIO], seen_B))
    )


def _by_title(losses: Losses, seen_B: NDArray[np.bool_] | None) -> Iterator[TitleFigures]:
    for seen in (True, False) if seen_B is not None else ():
        chosen = np.flatnonzero(seen_B == seen)
        enough = len(chosen) >= _FEWEST_RECORDS
        yield TitleFigures(
            seen, len(chosen), [_figures(side, PAPER_RATIO, losses, chosen) for side in _SIDES] if enough else []
        )


def _figures(
    side: str, ratio: float, losses: Losses, chosen: NDArray[np.int64], limit: float | None = None
) -> PartnerFigures:
    of_side = {partner: losses[f"{side}_{partner}"] for partner in PARTNERS}

    def estimate(of: Callable[[NDArray[np.int64]], float]) -> Estimate:
        return bootstrap(lambda drawn: of(chosen[drawn]), len(chosen))

    def higher_by(partner: str) -> Estimate:
        return estimate(lambda index: _mean(of_side[partner], index) - _mean(of_side["paired"], index))

    return PartnerFigures(
        side,
        ratio,
        {partner: estimate(partial(_mean, found)) for partner, found in of_side.items()},
        {partner: higher_by(partner) for partner in ("shuffled", "blank")},
        limit,
    )


def _mean(losses: RecordLosses, index: NDArray[np.int64]) -> float:
    count = losses.count_B[index].sum()
    return float(losses.sum_B[index].sum() / count) if count > 0 else float("nan")


def _score(at: dict[float, Losses], statistics: Statistics | None) -> float | None:
    if statistics is None:
        return None
    units = {"mlm_paired": statistics.unigram_entropy, "recon_of_hidden": statistics.pixel_variance}
    everything = np.arange(len(at[PAPER_RATIO]["mlm_paired"].sum_B))
    return float(
        np.mean([_mean(losses[name], everything) / unit for losses in at.values() for name, unit in units.items()])
    )


def _limit(limits: ProbeLimits, side: str, ratio: float) -> float:
    return (limits.mlm if side == "mlm" else limits.recon)[HIDDEN_RATIOS.index(ratio)]


def _told(figures: PartnerFigures, of_what: str = "") -> str:
    partner, hidden, _ = _SIDES[figures.side]
    difference, own = figures.differences["shuffled"], figures.losses["paired"].mean
    start = f"With {figures.hidden_ratio:.0%} of the {hidden} hidden{of_what}, another record's {partner}"
    by = f"{abs(difference.mean):.3g}"
    if not difference.excludes_zero:
        return f"{start} makes no difference to {figures.side.upper()} that was found ({_interval(difference)})."
    how = "raises" if difference.mean > 0 else "lowers"
    return f"{start} {how} {figures.side.upper()} by {by} ({_interval(difference)}) from {own:.3g}."


def _interval(difference: Estimate) -> str:
    return f"{difference.low:.3g} to {difference.high:.3g}"
