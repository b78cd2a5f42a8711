"""The losses: one class per objective; the target of image reconstruction is chosen by its `kind`."""

from typing import Annotated, Literal

from pydantic import Field

from mlim_ray.config.base import Section


class MlmConfig(Section):
    """Masked language modelling: negative log-likelihood of the hidden pieces (MLIM, as in BERT)."""

    weight: float = Field(1.0, ge=0.0)
    """weight of MLM in the total loss"""


class ReconConfig(Section):
    """Image reconstruction by MLIM's decoder: error summed over channels, averaged over pixels (MLIM)."""

    kind: Literal["pixels"] = "pixels"
    """what the picture's states must tell: raw pixels, by the model's decoder (MLIM)"""
    weight: float = Field(10.0, ge=0.0)
    """weight of RECON in the total loss; the paper names none, 10 brings both losses to one scale (our choice)"""
    target: Literal["whole", "masked"] = "whole"
    """pixels that count: the whole picture (paper, as we read it) or only those of hidden cells"""
    error: Literal["squared", "absolute"] = "squared"
    """of a colour: squared as in the paper, or absolute as in MaskVLM"""
    detached: bool = False
    """the decoder learns from the encoder's states and the encoder nothing from it: an encoder trained without RECON
    whose pictures can still be looked at"""


class NormalisedReconConfig(Section):
    """Pixels of each cell less their mean, over their standard deviation (MAE), told by a head of its own."""

    kind: Literal["normalised"] = "normalised"
    """what the picture's states must tell: the pixels of a cell, normalised cell by cell (MAE)"""
    weight: float = Field(1.0, ge=0.0)
    """weight of the loss, whose scale is 1 for a model that knows nothing"""
    target: Literal["whole", "masked"] = "masked"
    """cells that count: hidden ones (MAE) or all"""


class HogReconConfig(Section):
    """Histograms of oriented gradients (FastMIM), told by a head of its own."""

    kind: Literal["hog"] = "hog"
    """what the picture's states must tell: histograms of oriented gradients (FastMIM)"""
    weight: float = Field(1.0, ge=0.0)
    """weight of the loss, which for a histogram of length 1 lies between 0 and 2"""
    target: Literal["whole", "masked"] = "masked"
    """cells that count: hidden ones (FastMIM) or all"""
    orientations: int = Field(9, ge=2, le=36)
    """bins over 180 degrees (FastMIM: 9)"""
    pixels: int = Field(8, ge=2, le=32)
    """side of the square that one histogram is of (FastMIM: 8); it must divide the model's cells"""


class FeatureReconConfig(Section):
    """Features of a slow copy of the encoder that is shown everything (after SemMIM and MAMO), told by a head."""

    kind: Literal["features"] = "features"
    """what the picture's states must tell: the features of a slowly following copy of the encoder, which is shown all
    of the picture and the text (after SemMIM, MAMO)"""
    weight: float = Field(1.0, ge=0.0)
    """weight of the loss, whose scale is 1 for a model that knows nothing"""
    target: Literal["whole", "masked"] = "masked"
    """cells that count: hidden ones or all"""
    decay: float = Field(0.99, ge=0.0, lt=1.0)
    """what the copy keeps of itself at a step; it follows over 1 / (1 - decay) steps (our choice)"""


ImageTargetConfig = Annotated[
    ReconConfig | NormalisedReconConfig | HogReconConfig | FeatureReconConfig, Field(discriminator="kind")
]


class ItmConfig(Section):
    """Image-text matching: does the title belong to the picture? (ViLT, ALBEF; MLIM's paper leaves it out)"""

    weight: float = Field(0.0, ge=0.0)
    """weight of ITM in the total loss; 0: it is left out, with the pass through the encoder that it costs"""
    wrong_ratio: float = Field(0.5, gt=0.0, lt=1.0)
    """share of the records that are shown another record's title (ViLT: 0.5)"""


class ItcConfig(Section):
    """Contrastive alignment of pictures and titles: InfoNCE both ways (CLIP, MaskVLM)."""

    weight: float = Field(0.0, ge=0.0)
    """weight of ITC in the total loss; 0: it is left out, with the two passes through the encoder that it costs"""
    temperature: float = Field(0.07, gt=0.0)
    """similarities are divided by it (CLIP starts there; fixed here, our choice)"""
    width: int = Field(128, ge=1)
    """of the space in which both sides are compared (our choice)"""


class BalanceConfig(Section):
    """What keeps the experts of a mixture in use (EVE); nothing where the encoder has no mixture."""

    weight: float = Field(0.001, ge=0.0)
    """weight of the balance of experts, which is 1 when all are used alike (EVE: 0.001)"""
