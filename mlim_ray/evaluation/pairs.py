"""Closely-matching pairs (MLIM's downstream task): two listings, same product or not; PR AUC.

Legend: P pairs.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from mlim_ray.config.pairs import Encoding, PairsConfig
from mlim_ray.evaluation.average_precision import over_products
from mlim_ray.evaluation.bench import Bench
from mlim_ray.evaluation.intervals import Estimate, difference_of
from mlim_ray.evaluation.pair_baselines import frozen_baselines, oracles, plain_baselines
from mlim_ray.evaluation.pair_classifier import score_pairs, train_classifier
from mlim_ray.evaluation.pair_task import PairFacts, PairTask, Scores, make_task
from mlim_ray.evaluation.result import Cell, ResultTable
from mlim_ray.evaluation.showing import SHOWN, Shown
from mlim_ray.model import MlimModel

PRE_TRAINED, FROM_SCRATCH = "pre-trained", "from scratch"
TEXT_EQUALITY = "text equality (Jaccard of words)"
_SHOWN_AS: dict[Shown, str] = {"both": "both shown", "image": "text missing", "text": "image missing"}


@dataclass(frozen=True)
class Arm:
    """What is compared: a named start, how a pair is encoded, and how it is fine-tuned."""

    start: str
    """name of the model that fine-tuning starts from"""
    encoding: Encoding
    modality_dropout: bool

    @property
    def name(self) -> str:
        """As tables show it."""
        return f"{self.start}, {self.encoding}, {'with' if self.modality_dropout else 'without'} modality dropout"


@dataclass(frozen=True)
class ArmFigures:
    """PR AUC of an arm on the test pairs, by what is shown of them."""

    arm: Arm
    of_seeds: dict[str, list[float]]
    """one for each fine-tuning, in the order of the seeds"""
    average: dict[str, Estimate]
    """mean over the fine-tunings, its interval over resampled products"""


@dataclass(frozen=True)
class DropoutEffect:
    """PR AUC with modality dropout less that without, over fine-tunings of the same seeds."""

    start: str
    encoding: Encoding
    shown: Shown
    difference: Estimate


@dataclass(frozen=True)
class StartEffect:
    """PR AUC with both sides shown from another start, or none, less that from the paper's, paired by seed."""

    start: str
    encoding: Encoding
    modality_dropout: bool
    difference: Estimate


@dataclass(frozen=True)
class PairsResult:
    """What is known of a task of pairs and of every arm on it."""

    facts: PairFacts
    arms: list[ArmFigures]
    baselines: dict[str, dict[str, Estimate]]
    """by name and by what is shown"""
    effects: list[DropoutEffect]
    start_effects: list[StartEffect] = field(default_factory=list)
    """of every other start, none among them, against the paper's"""

    def tables(self) -> list[ResultTable]:
        """PR AUC of all arms and baselines, and what modality dropout changes."""
        facts = self.facts
        rows: list[dict[str, Cell]] = [
            {"features": figures.arm.name, **{_SHOWN_AS[shown]: figures.average[shown] for shown in SHOWN[::-1]}}
            for figures in self.arms
        ]
        rows += [
            {"features": name, **{_SHOWN_AS[shown]: figures.get(shown) for shown in SHOWN[::-1]}}
            for name, figures in self.baselines.items()
        ]
        words = "" if facts.kept_words_ratio == 1.0 else f", {facts.kept_words_ratio:.0%} of each title's words kept"
        num_close = facts.num_closeness_attributes
        close = f" and share most of {num_close} attributes" if num_close else ""
        caption = (
            f"PR AUC (average precision) on {facts.num_test_pairs:,} test pairs of {facts.num_test_products:,} "
            f"products, {facts.num_test_positives:,} of them of one product by {', '.join(facts.match)} "
            f"({facts.balance:.1%}, what chance reaches); fine-tuned on {facts.num_train_pairs:,} pairs of "
            f"{facts.num_train_products:,} other products{words}. Negatives have the same label{close}. "
            f"{facts.num_products_in_both} products in both splits; "
            f"{facts.num_left_out:,} records left out. Intervals over products."
        )
        tables = [ResultTable("Closely-matching pairs", caption, rows)]
        if self.effects:
            tables.append(self._effects_table())
        if self.start_effects:
            tables.append(self._start_effects_table())
        return tables

    def _start_effects_table(self) -> ResultTable:
        caption = (
            f"PR AUC with both sides shown less that of {PRE_TRAINED} (MLM and RECON, as the paper); intervals over "
            "pre-trainings and fine-tunings with the same seeds."
        )
        rows: list[dict[str, Cell]] = [
            {"arm": _named(effect), f"less {PRE_TRAINED}": effect.difference} for effect in self.start_effects
        ]
        return ResultTable("What another start changes", caption, rows)

    def _effects_table(self) -> ResultTable:
        rows: dict[tuple[str, Encoding], dict[str, Cell]] = {}
        for effect in self.effects:
            row = rows.setdefault((effect.start, effect.encoding), {"arm": f"{effect.start}, {effect.encoding}"})
            row[_SHOWN_AS[effect.shown]] = effect.difference
        caption = "PR AUC with modality dropout less that without; intervals over fine-tunings with the same seeds."
        return ResultTable("What modality dropout changes", caption, list(rows.values()))

    def verdict(self) -> list[str]:
        """Whether modality dropout helps, with both modalities and with one missing, and whether the best arm beats
        what needs no encoder."""
        sentences = [self._told(effect) for effect in self.effects]
        for other in self.start_effects:
            change = f"{_in_words(other.difference)}, both shown, against {PRE_TRAINED}"
            found = "a difference" if other.difference.excludes_zero else "no difference found"
            sentences.append(f"{_named(other)}: {found} ({change})")
        if self.arms:
            best = max(self.arms, key=lambda figures: figures.average["both"].mean)
            rivals = {name: of["both"] for name, of in self.baselines.items() if "both" in of and "oracle" not in name}
            rival = max(rivals, key=lambda name: rivals[name].mean)
            sentences.append(_beside(best, rival, rivals[rival]))
        return sentences

    @staticmethod
    def _told(effect: DropoutEffect) -> str:
        where = f"{effect.start}, {effect.encoding}, {_SHOWN_AS[effect.shown]}"
        difference = effect.difference
        if not difference.excludes_zero:
            return f"{where}: no difference found between with and without modality dropout ({_in_words(difference)})"
        return f"{where}: modality dropout {'helps' if difference.mean > 0 else 'harms'} ({_in_words(difference)})"


def pairs(bench: Bench, config: PairsConfig) -> PairsResult:
    """Fine-tune on pairs of the training split, with and without modality dropout, and score those of the test split.

    Raises:
        ValueError: the set lacks what products are told by, or has no pairs.
    """
    starts = {PRE_TRAINED: bench.model} | ({FROM_SCRATCH: bench.untrained} if config.from_scratch else {})
    task = make_task(bench.train, bench.test, bench.tokenizer, config, bench.seed)
    arms = arms_of(starts, config)
    runs: dict[Arm, list[Scores]] = {arm: [] for arm in arms}
    num_done, num_all = 0, len(arms) * config.num_seeds
    for seed in range(config.num_seeds):
        for arm in arms:

            def advance(done: int, of: int, num_before: int = num_done) -> None:
                bench.on_progress("pairs", num_before * of + done, num_all * of)

            runs[arm].append(run_arm(task, starts[arm.start], arm, config, bench.seed + seed, advance))
            num_done += 1
    references = frozen_baselines(task, bench.model, "frozen encoder") | references_of(task, bench.untrained)
    return summarise(task, runs, references)


def arms_of(starts: Mapping[str, object], config: PairsConfig) -> list[Arm]:
    """Every arm of some named starts: each encoding, without and with modality dropout."""
    return [
        Arm(start, encoding, dropout) for start in starts for encoding in config.encodings for dropout in (False, True)
    ]


def run_arm(
    task: PairTask,
    start: MlimModel,
    arm: Arm,
    config: PairsConfig,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """The scores of the test pairs after one fine-tuning of a copy of `start`."""
    classifier = train_classifier(
        start,
        arm.encoding,
        task.train.examples.records,
        task.train.pairs,
        config,
        seed,
        modality_dropout=arm.modality_dropout,
        on_progress=on_progress,
    )
    records, test_pairs = task.test.examples.records, task.test.pairs
    return {shown: score_pairs(classifier, records, test_pairs, shown) for shown in SHOWN}


def references_of(task: PairTask, untrained: MlimModel) -> dict[str, Scores]:
    """The rows that every table of pairs has beside its arms."""
    return {
        **frozen_baselines(task, untrained, "untrained encoder"),
        **plain_baselines(task, untrained.config.hidden_size),
        **oracles(task),
    }


def summarise(task: PairTask, runs: Mapping[Arm, list[Scores]], references: Mapping[str, Scores]) -> PairsResult:
    """Figures, intervals and effects from the scores of the test pairs; every arm has the same seeds in one order."""
    arms = [_figures(task, arm, scores) for arm, scores in runs.items()]
    by_arm = {figures.arm: figures for figures in arms}
    return PairsResult(
        task.facts,
        arms,
        {
            name: {shown: _over_products(task, [scores[shown]]) for shown in SHOWN if shown in scores}
            for name, scores in references.items()
        },
        list(_effects(by_arm)),
        list(_start_effects(by_arm)),
    )


def _figures(task: PairTask, arm: Arm, runs: list[Scores]) -> ArmFigures:
    is_same_P = task.test.pairs.is_same_P
    of_seeds: dict[str, list[float]] = {}
    average: dict[str, Estimate] = {}
    for shown in SHOWN:
        of_seeds[shown] = [float(average_precision_score(is_same_P, run[shown])) for run in runs]
        average[shown] = _over_products(task, [run[shown] for run in runs])
    return ArmFigures(arm, of_seeds, average)


def _over_products(task: PairTask, scores: list[NDArray[np.float64]]) -> Estimate:
    return over_products(task.test.pairs.is_same_P, task.test.pairs.product_P, scores)


def _effects(by_arm: Mapping[Arm, ArmFigures]) -> Iterator[DropoutEffect]:
    for arm, figures in by_arm.items():
        plain = by_arm.get(Arm(arm.start, arm.encoding, False))
        if arm.modality_dropout and plain is not None and len(figures.of_seeds["both"]) > 1:
            for shown in SHOWN[::-1]:
                difference = difference_of(figures.of_seeds[shown], plain.of_seeds[shown])
                yield DropoutEffect(arm.start, arm.encoding, shown, difference)


def _start_effects(by_arm: Mapping[Arm, ArmFigures]) -> Iterator[StartEffect]:
    for arm, figures in by_arm.items():
        own = by_arm.get(Arm(PRE_TRAINED, arm.encoding, arm.modality_dropout))
        if arm.start != PRE_TRAINED and own is not None and len(figures.of_seeds["both"]) > 1:
            difference = difference_of(figures.of_seeds["both"], own.of_seeds["both"])
            yield StartEffect(arm.start, arm.encoding, arm.modality_dropout, difference)


def _named(effect: StartEffect) -> str:
    return Arm(effect.start, effect.encoding, effect.modality_dropout).name


def _in_words(estimate: Estimate) -> str:
    return f"{estimate.mean:+.3f}, 95 % interval {estimate.low:+.3f} to {estimate.high:+.3f}"


def _beside(best: ArmFigures, rival: str, figure: Estimate) -> str:
    own = best.average["both"]
    told = f"the best arm with both modalities ({best.arm.name}) reaches {own.mean:.3f} and {rival} {figure.mean:.3f}"
    if own.low > figure.high:
        return f"{told}: the arm is ahead, their intervals do not meet"
    return f"{told}: {'the arm is behind' if own.high < figure.low else 'their intervals meet, so neither is ahead'}"
