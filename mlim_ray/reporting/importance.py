"""Shares of importance as bars."""

from __future__ import annotations

from dataclasses import dataclass

from mlim_ray.reporting.figures import finite
from mlim_ray.reporting.search_figures import Importance, knob_title


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


def _bars(shares: list[tuple[str, float]]) -> list[ShareBar]:
    known = [(name, share) for name, value in shares if (share := finite(value)) is not None]
    largest = max((share for _, share in known), default=0.0) or 1.0
    return [
        ShareBar(name, share, round(100 * max(0.0, share) / largest, 1))
        for name, share in sorted(known, key=lambda item: -item[1])
    ]
