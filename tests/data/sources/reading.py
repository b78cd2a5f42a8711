"""Opening and reading sources in the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import Cleaned, CleaningRules, RawRecord, clean
from mlim_ray.data.sources import Source, open_source, resolve_prepare_config


def configured(**knobs: Any) -> PrepareConfig:
    return resolve_prepare_config(PrepareConfig(**knobs), 16)


def opened(path: Path, **knobs: Any) -> Source:
    return open_source(str(path), configured(**knobs))


def records_of(source: Source) -> list[RawRecord]:
    return [record for part in source.slices() for batch in source.read(part) for record in batch]


def cleaned(source: Source) -> Cleaned:
    return clean(records_of(source), CleaningRules.of(configured(), source.columns.split is not None))


def reasons(source: Source) -> dict[tuple[str, int], str]:
    """Source and row of each rejected record, and why."""
    return {(record.source, record.row): record.reason.value for record in cleaned(source).rejected}
