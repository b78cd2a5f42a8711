"""Which words and image cells are hidden: one class per masking policy, chosen by its `kind`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlim_ray.config.base import Section, ratio


class MamConfig(Section):
    """Modality Aware Masking (MLIM): each record draws one of three modes.

    The paper gives the modes, equal probability and 80 % (paper section on MAM). That the draw is per record, that a
    heavy mode leaves the other side whole, and the light ratios are our choice.
    """

    kind: Literal["mam"] = "mam"
    """masking policy: three modes, one drawn per record"""
    image_heavy_probability: float = ratio(1 / 3)
    """probability of the mode that hides most of the picture (paper: 1/3)"""
    text_heavy_probability: float = ratio(1 / 3)
    """probability of the mode that hides most of the words (paper: 1/3); what is left is the light mode"""
    image_heavy_ratio: float = ratio(0.8)
    """share of cells hidden in the image-heavy mode (paper: 0.8)"""
    text_heavy_ratio: float = ratio(0.8)
    """share of words hidden in the text-heavy mode (paper: 0.8)"""
    image_heavy_text_ratio: float = ratio(0.0)
    """share of words hidden in the image-heavy mode (our choice: none)"""
    text_heavy_image_ratio: float = ratio(0.0)
    """share of cells hidden in the text-heavy mode (our choice: none)"""
    image_light_ratio: float = ratio(0.15)
    """share of cells hidden in the light mode (our choice)"""
    text_light_ratio: float = ratio(0.15)
    """share of words hidden in the light mode (our choice)"""

    @model_validator(mode="after")
    def _probabilities_fit(self) -> Self:
        total = self.image_heavy_probability + self.text_heavy_probability
        if total > 1.0 + 1e-9:
            raise ValueError(
                f"image_heavy_probability + text_heavy_probability is {total:g}, expected at most 1; "
                "the rest is the light mode's probability, so lower one of the two"
            )
        return self


class IndependentConfig(Section):
    """One fixed ratio for each modality, in every record: the usual baseline of the field."""

    kind: Literal["independent"] = "independent"
    """masking policy: the same ratios in every record"""
    image_ratio: float = ratio(0.15)
    """share of cells hidden in every record"""
    text_ratio: float = ratio(0.15)
    """share of words hidden in every record"""


class AlternatingConfig(Section):
    """One heavy mode or the other, no light mode: MAM without its third mode (the ablation of our choice)."""

    kind: Literal["alternating"] = "alternating"
    """masking policy: one modality hidden heavily, the other whole"""
    image_heavy_probability: float = ratio(0.5)
    """probability that the picture is the one hidden; otherwise the words are"""
    image_heavy_ratio: float = ratio(0.8)
    """share of cells hidden when the picture is the one hidden"""
    text_heavy_ratio: float = ratio(0.8)
    """share of words hidden when the text is the one hidden"""


class BlockwiseConfig(Section):
    """Rectangles of neighbouring cells (BEiT, BEiT-3; MaskVLM), words one by one.

    BEiT-3 and VL-BEiT hide 40 % of the cells in blocks and 50 % of the words, and BEiT's blocks are of at least 16 of
    196 cells with sides of at most 10:3. MaskVLM hides 60 % in squares of 32 pixels, or 30 % of the words and never
    both: probabilities of 0.5 each, both block ratios the share of one square, aspect 1. Blocks that go on at the
    opposite edge are our choice (`mlim_ray.masking.blockwise`).
    """

    kind: Literal["blockwise"] = "blockwise"
    """masking policy: blocks of neighbouring cells"""
    image_ratio: float = ratio(0.4)
    """share of cells hidden, in blocks (BEiT-3: 0.4)"""
    text_ratio: float = ratio(0.5)
    """share of words hidden (BEiT-3: 0.5)"""
    image_only_probability: float = ratio(0.0)
    """probability that a record's words all stay (MaskVLM: half of the time)"""
    text_only_probability: float = ratio(0.0)
    """probability that a record's cells all stay (MaskVLM: half of the time)"""
    smallest_block_ratio: float = Field(0.08, gt=0.0, le=1.0)
    """smallest block's share of the cells (BEiT: 16 of 196)"""
    largest_block_ratio: float = Field(0.38, gt=0.0, le=1.0)
    """largest block's share of the cells (BEiT: all that is hidden, 75 of 196)"""
    smallest_aspect: float = Field(0.3, gt=0.0, le=1.0)
    """a block's shorter side over its longer one is at least this (BEiT: 0.3)"""

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        _require_rest(self.image_only_probability, self.text_only_probability)
        if self.smallest_block_ratio > self.largest_block_ratio:
            raise ValueError(
                f"smallest_block_ratio is {self.smallest_block_ratio:g} and largest_block_ratio "
                f"{self.largest_block_ratio:g}; expected the smallest to be at most the largest"
            )
        return self


class TextAttentiveConfig(Section):
    """The cells that go best with the title are hidden, words one by one (after SemMIM and SyCoCa).

    SemMIM lets the text guide which cells are hidden, and SyCoCa found such masks better than random ones (there named
    text-attentive). How either measures what goes with the text is not known to us; this is our choice: the model is
    shown the whole record, and a cell goes with the title as far as its state is like the mean of the words' states.
    Ratios and the two probabilities, by which one side is whole where the other is hidden, are our choice too.
    """

    kind: Literal["text_attentive"] = "text_attentive"
    """masking policy: the cells that the title tells of"""
    image_ratio: float = ratio(0.6)
    """share of cells hidden"""
    text_ratio: float = ratio(0.6)
    """share of words hidden"""
    image_only_probability: float = ratio(0.5)
    """probability that a record's words all stay"""
    text_only_probability: float = ratio(0.5)
    """probability that a record's cells all stay"""
    chance_weight: float = Field(1.0, ge=0.0)
    """what a cell gains that chance would have hidden, in standard deviations of the record's likenesses: 0 leaves all
    to the title, and far above 3 it has no say"""

    @model_validator(mode="after")
    def _probabilities_fit(self) -> Self:
        _require_rest(self.image_only_probability, self.text_only_probability)
        return self


MaskingConfig = Annotated[
    MamConfig | IndependentConfig | AlternatingConfig | BlockwiseConfig | TextAttentiveConfig,
    Field(discriminator="kind"),
]


def _require_rest(image_only: float, text_only: float) -> None:
    """Raises ValueError unless the probabilities of one side alone leave room for both."""
    if image_only + text_only > 1.0 + 1e-9:
        raise ValueError(
            f"image_only_probability + text_only_probability is {image_only + text_only:g}, expected at most 1; "
            "the rest is the probability of both, so lower one of the two"
        )
