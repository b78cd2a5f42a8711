"""The task of closely-matching pairs: two listings, same product or not (MLIM's downstream task)."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from mlim_ray.config.base import Section, ratio
from mlim_ray.config.fine_tune import FineTuneConfig

Encoding = Literal["siamese", "cross"]


class PairsConfig(Section):
    """Which listings are of one product, how many pairs, and how they are learned (the paper tells only that there are
    30,000 training and 10,000 test pairs of its own: our choice throughout)."""

    match: tuple[str, ...] = ("group",)
    """what two listings of one product have in common: group (the set's group column), label, first_word (of the
    title), or names of attribute columns; with several, all of them"""
    num_train_positives: int = Field(600, ge=1)
    """most pairs of one product to learn from"""
    num_test_positives: int = Field(500, ge=1)
    """most pairs of one product that figures are of"""
    negatives_per_positive: int = Field(3, ge=1)
    """pairs of two products for each pair of one; what chance reaches is one in one more than these"""
    num_candidates: int = Field(32, ge=1)
    """a negative has the label of its positive; of so many such listings those that share most attributes are taken,
    which makes negatives hard; 1: any"""
    kept_words_ratio: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """share of each title's words that is kept, drawn by its key; none: all of them where group alone matches, and
    half where rules do, since rules that read a title would else be read off it"""
    encoding: Literal["siamese", "cross", "both"] = "both"
    """siamese: each listing alone through the encoder; cross: both as one sequence; both: arms of each"""
    text_only_ratio: float = ratio(0.25)
    """modality dropout: share of the listings of a step that show their title alone"""
    image_only_ratio: float = ratio(0.25)
    """modality dropout: share of the listings of a step that show their picture alone"""
    from_scratch: bool = False
    """fine-tune the untrained encoder as well"""
    num_seeds: int = Field(3, ge=2)
    """fine-tunings of each arm, each with its own head, order and dropout"""
    fine_tune: FineTuneConfig = Field(default_factory=lambda: FineTuneConfig(num_epochs=12.0))

    @property
    def matched_by_rules(self) -> bool:
        """Whether more than the group column decides what one product is."""
        return self.match != ("group",)

    @property
    def kept_ratio(self) -> float:
        """Share of each title's words that is kept."""
        if self.kept_words_ratio is not None:
            return self.kept_words_ratio
        return 0.5 if self.matched_by_rules else 1.0

    @property
    def encodings(self) -> tuple[Encoding, ...]:
        """How the pairs of each arm are encoded."""
        return ("siamese", "cross") if self.encoding == "both" else (self.encoding,)

    @field_validator("match")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or len(set(names)) < len(names):
            raise ValueError(f"given {', '.join(names) or 'nothing'}, expected one name or more, each once")
        return names

    @model_validator(mode="after")
    def _something_is_shown(self) -> Self:
        if self.text_only_ratio + self.image_only_ratio > 1.0:
            raise ValueError(
                f"text_only_ratio {self.text_only_ratio} and image_only_ratio {self.image_only_ratio} are more than "
                "all listings together; expected a sum of at most 1"
            )
        return self
