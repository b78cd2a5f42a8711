"""How a pre-trained encoder is fine-tuned for an evaluation."""

from typing import Annotated, Literal

from pydantic import Field

from mlim_ray.config.base import AUTO, Section


class FineTuneConfig(Section):
    """AdamW with warm-up and cosine, as in pre-training, at a lower rate (our choice)."""

    num_epochs: float = Field(10.0, gt=0.0)
    """times that each training example is seen"""
    batch_size: int = Field(64, ge=1)
    """examples of a step"""
    learning_rate: Annotated[float, Field(gt=0.0)] | Literal["auto"] = AUTO
    """peak learning rate; auto: a third of what a model of this width is pre-trained with"""
    weight_decay: float = Field(0.05, ge=0.0)
    """AdamW's weight decay"""
    warmup_ratio: float = Field(0.1, ge=0.0, le=1.0)
    """share of the steps over which the rate rises"""
