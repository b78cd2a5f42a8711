"""What an inspection finds: counts are of the sample unless they say otherwise."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mlim_ray.data.inspection.distribution import Distribution
from mlim_ray.data.inspection.estimate import Estimate
from mlim_ray.data.inspection.examples import Example


@dataclass(frozen=True)
class PictureFacts:
    """Pictures of all records of the sample, from their headers."""

    kinds: dict[str, int]
    """format and mode, the commonest first"""
    sizes: dict[str, int]
    """the commonest sizes, width x height"""
    num_sizes: int
    """different sizes in all"""
    width: Distribution | None
    height: Distribution | None
    num_bytes: Distribution | None
    """of encoded pictures"""
    num_measured: int
    """pictures whose header gives a size"""
    max_aspect_ratio: float
    """of the config"""
    num_extreme: int
    """pictures whose long side is more than that many times their short one"""
    most_extreme: str | None
    num_enlarged: int
    """pictures with both sides shorter than the stored one"""


@dataclass(frozen=True)
class TextFacts:
    """Texts of the accepted records."""

    characters: Distribution
    words: Distribution
    """the words that masking hides"""
    tokens: Distribution
    """pieces with [CLS] and [SEP], before any cut"""
    num_texts: int
    max_text_characters: int
    num_cut_characters: int
    """texts longer than max_text_characters"""
    max_tokens: int
    num_cut_tokens: int
    """texts of more pieces than max_tokens"""
    tokenizer: str | None
    """folder of the given tokenizer; None for a vocabulary trained on the sample"""
    vocab_size: int
    unknown_ratio: float
    """share of the pieces that the vocabulary does not know"""


@dataclass(frozen=True)
class Rejection:
    """One reason, and the first record of the sample that was rejected for it."""

    reason: str
    count: int
    key: str | None
    source: str
    row: int
    detail: str


@dataclass(frozen=True)
class Inspection:
    """A source and a sample of it."""

    source: str
    format: str
    num_files: int | None
    """files that the records come from, pictures included; None for a generated catalogue"""
    num_bytes: int | None
    num_records: int
    """of the whole source"""
    column_types: dict[str, str]
    columns: dict[str, str]
    """role to column"""
    image_size: int
    """side of the stored square in pixels"""
    image_encoding: str
    fit: str
    extreme_fit: str
    num_sampled: int
    num_places: int
    """runs of records that the sample consists of"""
    num_accepted: int
    max_rejected_ratio: float
    reasons: dict[str, int]
    """rejected records by reason, the commonest first"""
    rejections: tuple[Rejection, ...]
    """the same with an example each"""
    pictures: PictureFacts
    texts: TextFacts | None
    """None where nothing was accepted"""
    labels: dict[str, int]
    """accepted records by label, the commonest first; long labels are shortened"""
    splits: dict[str, int]
    """accepted records by split"""
    num_repeated_keys: int
    """accepted records whose key an earlier one of the sample has: duplicates"""
    repeated_key: str | None
    """the first such key"""
    num_groups: int
    num_groups_across: int
    """groups with records in several splits"""
    estimate: Estimate | None
    """None where nothing was accepted"""
    prepared: dict[str, Any] | None
    """what the manifest says, for a prepared set"""
    hints: tuple[str, ...]
    """what to do first, one line each"""
    accepted_examples: tuple[Example, ...]
    rejected_examples: tuple[Example, ...]
    attributes: tuple[str, ...] = ()
    """columns kept as attributes"""

    def scaled(self, count: int) -> int:
        """A count of the sample as one of the whole source."""
        return round(count * self.num_records / self.num_sampled) if self.num_sampled else 0

    def as_json(self) -> dict[str, Any]:
        """Everything but the example records, as plain values."""
        facts = asdict(self)
        del facts["accepted_examples"], facts["rejected_examples"]
        return facts
