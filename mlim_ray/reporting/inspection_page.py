"""The page of an inspection: a contact sheet, histograms and tables; small, and without a chart library."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from mlim_ray.data.inspection import Distribution, Example, Inspection, Thumbnail, share
from mlim_ray.reporting.figures import Command
from mlim_ray.reporting.page import render_page
from mlim_ray.reporting.quantities import data_size, rough_time
from mlim_ray.reporting.run_page import flat

MARK = '<meta name="generator" content="mlim_ray inspect">'
"""by which a page of ours can be told from any other file"""
_MAX_ROWS = 100


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram, or one row of a bar table."""

    name: str
    count: int
    height: float
    """in per cent of the highest"""
    is_beyond: bool = False
    """past the limit that is drawn"""


@dataclass(frozen=True)
class Histogram:
    """A distribution, ready to be drawn."""

    title: str
    bars: Sequence[Bar]
    low: str
    median: str
    high: str
    note: str


def render_inspection_page(found: Inspection, next_command: str) -> str:
    """One self-contained HTML page; everything that comes from the data is escaped.

    Args:
        found: with the examples that the contact sheet shows.
        next_command: the command to run next.
    """
    rejected = found.num_sampled - found.num_accepted
    return render_page(
        "inspection.html.j2",
        {},
        found=found,
        name=found.source.rstrip("/").rpartition("/")[2] or found.source,
        roles=_roles(found),
        num_rejected=rejected,
        share=share,
        data_size=data_size,
        rough_time=rough_time,
        sheets=[(reason, list(examples)) for reason, examples in groupby(found.rejected_examples, _reason)],
        pictures=_picture_histograms(found),
        texts=_text_histograms(found),
        kinds=_bars(found.pictures.kinds),
        sizes=_bars(found.pictures.sizes),
        labels=_bars(found.labels),
        splits=_bars(found.splits),
        manifest=flat(found.prepared) if found.prepared is not None else [],
        thumbnail_uri=thumbnail_uri,
        commands=[Command("Prepare it:", next_command)],
        mark=MARK,
    )


def thumbnail_uri(thumbnail: Thumbnail) -> str:
    """A thumbnail as the address of an image in the page itself."""
    return f"data:image/{thumbnail.kind};base64,{base64.b64encode(thumbnail.content).decode()}"


def _reason(example: Example) -> str:
    return example.reason or ""


def _roles(found: Inspection) -> list[tuple[str, str, str]]:
    """Name, type and roles of every column, those in use first."""
    used: dict[str, list[str]] = {}
    for role, column in found.columns.items():
        used.setdefault(column, []).append(role)
    names = [*used, *(name for name in found.column_types if name not in used)]
    return [(name, found.column_types.get(name, ""), ", ".join(used.get(name, []))) for name in names]


def _bars(counts: Mapping[str, int]) -> list[Bar]:
    most = max(counts.values(), default=1)
    return [Bar(name, count, 100 * count / most) for name, count in list(counts.items())[:_MAX_ROWS]]


def _picture_histograms(found: Inspection) -> list[Histogram]:
    pictures = found.pictures
    return [
        _histogram(title, of, unit)
        for title, of, unit in (
            ("Width", pictures.width, "px"),
            ("Height", pictures.height, "px"),
            ("Encoded size", pictures.num_bytes, "bytes"),
        )
        if of is not None
    ]


def _text_histograms(found: Inspection) -> list[Histogram]:
    texts = found.texts
    if texts is None:
        return []
    limit = f"--max-tokens {texts.max_tokens}"
    cut = f"{texts.num_cut_tokens:,} beyond {limit} will be cut" if texts.num_cut_tokens else f"none beyond {limit}"
    return [
        _histogram("Characters", texts.characters, ""),
        _histogram("Words", texts.words, ""),
        _histogram("Tokens, with [CLS] and [SEP]", texts.tokens, "", limit=texts.max_tokens, note=cut),
    ]


def _histogram(title: str, of: Distribution, unit: str, *, limit: int | None = None, note: str = "") -> Histogram:
    def shown(value: int) -> str:
        return data_size(value) if unit == "bytes" else f"{value:,} {unit}".strip()

    most = max(of.counts)
    bars = [
        Bar(
            shown(low) if high - low == 1 else f"{shown(low)} to {shown(high - 1)}",
            count,
            100 * count / most,
            limit is not None and low > limit,
        )
        for (low, high), count in zip(pairwise(of.edges), of.counts, strict=True)
    ]
    widths = {high - low for low, high in pairwise(of.edges)}
    notes = [note] if note else []
    if len(widths) > 1:
        notes.append("bins grow geometrically")
    return Histogram(title, bars, shown(of.minimum), shown(of.median), shown(of.maximum), "; ".join(notes))
