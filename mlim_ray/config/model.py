"""The model's size and the few knobs that change its shape."""

from typing import Literal, Self

from pydantic import Field, model_validator

from mlim_ray.config.base import AUTO, Section

ModelSize = Literal["tiny", "small", "base", "large"]


class ModelConfig(Section):
    """Which MLIM is trained. What a size means is listed in `mlim_ray.model.sizes`."""

    size: Literal["auto", "tiny", "small", "base", "large"] = AUTO
    """tiny (32 px, 16 cells, width 128, 3 layers), small, base or large (as in the paper: 384 px, BERT-large);
    auto: tiny without a GPU, base with one"""
    bert_checkpoint: str | None = None
    """folder of a BERT checkpoint whose encoder weights the model starts from (its width and depth must fit)"""
    init_from: str | None = None
    """folder of another run, local or s3://, whose weights the model starts from: its newest good checkpoint, or its
    model; schedule and data are new, size and vocabulary must be the same"""
    dropout_ratio: float = Field(0.0, ge=0.0, lt=1.0)
    """dropout in the encoder; 0 keeps a run the same for any number of workers (our choice for pre-training)"""
    licence: str | None = None
    """licence of the exported weights, as their card says it (apache-2.0, cc-by-nc-4.0, other); not decided: the card
    says unknown"""

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.bert_checkpoint is not None and self.init_from is not None:
            raise ValueError("bert_checkpoint and init_from are both given, expected at most one; leave one out")
        return self
