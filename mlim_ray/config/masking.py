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


MaskingConfig = Annotated[MamConfig | IndependentConfig | AlternatingConfig, Field(discriminator="kind")]
