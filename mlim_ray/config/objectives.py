"""The weights of the losses."""

from typing import Literal

from pydantic import Field

from mlim_ray.config.base import Section


class MlmConfig(Section):
    """Masked language modelling: negative log-likelihood of the hidden pieces (MLIM, as in BERT)."""

    weight: float = Field(1.0, ge=0.0)
    """weight of MLM in the total loss"""


class ReconConfig(Section):
    """Image reconstruction: squared error summed over channels, averaged over pixels (MLIM)."""

    weight: float = Field(10.0, ge=0.0)
    """weight of RECON in the total loss; the paper names none, 10 brings both losses to one scale (our choice)"""
    target: Literal["whole", "masked"] = "whole"
    """pixels that count: the whole picture (paper, as we read it) or only those of hidden cells"""
