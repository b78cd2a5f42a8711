"""What the knobs are worth: shares as bars, and the pairs that are worth a look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from mlim_ray.reporting.figures import finite
from mlim_ray.reporting.search_figures import Importance, Search, Trial, knob_title

_NUM_PAIRS = 3
_FEWEST_TOGETHER = 5


@dataclass(frozen=True)
class ShareBar:
    """One knob, or two together."""

    name: str
    share: float
    width: float
    """of its bar in per cent; the largest fills the track"""


def knob_bars(importance: Importance) -> list[ShareBar]:
    """One bar a knob, the most important first."""
    return _bars([(knob_title(name), value) for name, value in importance.values.items()])


def interaction_bars(importance: Importance) -> list[ShareBar]:
    """One bar a pair of knobs, the strongest first."""
    return _bars(
        [
            (f"{knob_title(first)} \u00d7 {knob_title(second)}", value)
            for first, second, value in importance.interactions
        ]
    )


def weighty_pairs(search: Search) -> list[tuple[str, str]]:
    """Pairs of the weightiest knobs that some trials have together, for a look at what they do together."""
    if search.importance is None:
        return []
    shares = {name: share for name, value in search.importance.values.items() if (share := finite(value)) is not None}
    ranked = sorted(shares, key=lambda name: -shares[name])
    pairs = sorted(combinations(ranked, 2), key=lambda pair: -shares[pair[0]] * shares[pair[1]])
    return [pair for pair in pairs if _vary_together(search.trials, pair)][:_NUM_PAIRS]


def _vary_together(trials: Sequence[Trial], pair: tuple[str, str]) -> bool:
    """Whether enough measured trials have both, and not all with the same value of one."""
    both = [trial.params for trial in trials if trial.curve and all(name in trial.params for name in pair)]
    return len(both) >= _FEWEST_TOGETHER and all(len({str(params[name]) for params in both}) > 1 for name in pair)


def _bars(shares: list[tuple[str, float]]) -> list[ShareBar]:
    known = [(name, share) for name, value in shares if (share := finite(value)) is not None]
    largest = max((share for _, share in known), default=0.0) or 1.0
    return [
        ShareBar(name, share, round(100 * max(0.0, share) / largest, 1))
        for name, share in sorted(known, key=lambda item: -item[1])
    ]
