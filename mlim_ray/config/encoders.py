"""What the encoder's layers are made of: one class per kind, chosen by its `kind`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlim_ray.config.base import Section


class SingleStreamConfig(Section):
    """BERT's encoder over cells and words together (MLIM)."""

    kind: Literal["single_stream"] = "single_stream"
    """encoder: the same weights for cells and words in every layer"""


class MixtureConfig(Section):
    """A modality-aware mixture of experts in the last layers (after EVE): a gate sends each cell and word to a few.

    EVE: 32 experts, 2 used, in 2 or 3 last layers, a balance weight of 0.001 (its code for fine-tuning); a learned
    vector of the modality is added to what the gate sees. How it pre-trains is not published. That experts are as wide
    as BERT's feed-forward, that none turns rows away, and 8 experts instead of 32 are our choice.
    """

    kind: Literal["mixture"] = "mixture"
    """encoder: experts chosen for each cell and word by a gate that knows the modality, in the last layers"""
    num_layers: int = Field(2, ge=1)
    """last layers that are mixtures"""
    num_experts: int = Field(8, ge=2)
    """experts of such a layer"""
    expert_width_ratio: float = Field(1.0, gt=0.0, le=1.0)
    """an expert's hidden width over that of the layer's one feed-forward part otherwise; 1 over their number: together
    they have as many parameters as that"""
    num_used: int = Field(2, ge=1)
    """experts that each cell and word goes through"""

    @model_validator(mode="after")
    def _enough_experts(self) -> Self:
        if self.num_used > self.num_experts:
            raise ValueError(
                f"num_used is {self.num_used} and num_experts {self.num_experts}; expected at most as many as there are"
            )
        return self


EncoderConfig = Annotated[SingleStreamConfig | MixtureConfig, Field(discriminator="kind")]
