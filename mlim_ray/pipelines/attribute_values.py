"""Which values an attribute has in a source, and how often: read once more, without decoding a picture."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

from mlim_ray.data import storage
from mlim_ray.data.cleaning import attribute_text
from mlim_ray.data.sources import Slice, Source
from mlim_ray.pipelines.model_pass import OnProgress
from mlim_ray.pipelines.ordered_map import map_in_order
from mlim_ray.pipelines.prepare_tasks import once

_KEPT_PER_SLICE = 100_000
"""different values of a slice that are told; more are no category in any case"""


def values_of(
    source: Source, slices: list[Slice], staging: str, most_values: int, on_progress: OnProgress
) -> list[str]:
    """The values of the source's first attribute, sorted.

    Raises:
        ValueError: there are more than `most_values`, or none at all.
    """
    name = source.columns.attributes[0]
    counts: Counter[str] = Counter()
    done, total = 0, sum(part.stop - part.start for part in slices)
    for number, result in enumerate(map_in_order(_CountValues(source, slices, staging), len(slices))):
        counts.update(json.loads(result))
        done += slices[number].stop - slices[number].start
        on_progress("values", done, total)
        if len(counts) > most_values:
            raise ValueError(
                f"--attribute {name}: more than {most_values:,} different values ({', '.join(list(counts)[:3])}, ...), "
                "which is no category; name another column, or raise --fill.most-values"
            )
    if not counts:
        raise ValueError(
            f"--attribute {name}: no record of {source.name} has it; expected some to learn its values from"
        )
    return sorted(counts)


@dataclass(frozen=True)
class _CountValues:
    source: Source
    slices: list[Slice]
    staging: str

    def __call__(self, number: int) -> str:
        return once(storage.join(self.staging, f"values-{number:06d}.json"), lambda: self._count(number))

    def _count(self, number: int) -> dict[str, int]:
        (name,) = self.source.columns.attributes
        counts: Counter[str] = Counter()
        for records in self.source.read(self.slices[number]):
            for record in records:
                value = attribute_text(record.attributes.get(name))
                if isinstance(value, str):
                    counts[value] += 1
        return dict(counts.most_common(_KEPT_PER_SLICE))
