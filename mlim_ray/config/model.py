"""The model's size and the few knobs that change its shape."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlim_ray.config.base import AUTO, Section
from mlim_ray.config.embedders import EmbedderConfig, ShallowCnnConfig
from mlim_ray.config.encoders import EncoderConfig, MixtureConfig, SingleStreamConfig

ModelSize = Literal["tiny", "small", "base", "large"]


class ModelConfig(Section):
    """Which MLIM is trained. What a size means is listed in `mlim_ray.model.sizes`."""

    size: Literal["auto", "tiny", "small", "base", "large"] = AUTO
    """tiny (32 px, 16 cells, width 128, 3 layers), small, base or large (as in the paper: 384 px, BERT-large);
    auto: tiny without a GPU, base with one"""
    embedder: EmbedderConfig = Field(default_factory=ShallowCnnConfig)
    cell_size: Annotated[int, Field(ge=2)] | None = None
    """side of an image cell in pixels, a power of two that divides the picture; none: the size's own. The embedder's
    and the decoder's levels follow it"""
    encoder: EncoderConfig = Field(default_factory=SingleStreamConfig)
    num_joint_layers: Annotated[int, Field(ge=1)] | None = None
    """remove hidden cells, after MAE: only so many last layers of the encoder see them, as [MASK] with their positions,
    and all before work on what is visible; none: all layers see them (MLIM)"""
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

    @model_validator(mode="after")
    def _experts_fit_bert(self) -> Self:
        encoder = self.encoder
        if self.bert_checkpoint is not None and isinstance(encoder, MixtureConfig) and encoder.expert_width_ratio < 1.0:
            raise ValueError(
                f"encoder.expert_width_ratio is {encoder.expert_width_ratio:g}, and BERT's feed-forward parts, which "
                "experts start from, are as wide as 1; leave bert_checkpoint or the ratio out"
            )
        return self
