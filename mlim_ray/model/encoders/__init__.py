"""Encoders: what the layers are made of, and which positions they see; all have the interface of `Encoder`."""

from functools import partial

from torch import nn

from mlim_ray.model.configuration import MlimConfig
from mlim_ray.model.encoder import Encoder, EncoderLayer, FeedForward
from mlim_ray.model.encoders.mixture import Balance, Mixture, balance_of
from mlim_ray.model.encoders.removal import RemovingEncoder

__all__ = ["Balance", "Mixture", "RemovingEncoder", "balance_of", "make_encoder"]


def make_encoder(config: MlimConfig) -> Encoder:
    """The encoder of a model, with fresh weights; with pre-norm a last norm closes it."""
    width, eps = config.hidden_size, config.layer_norm_eps
    mixture = partial(
        Mixture,
        num_experts=config.num_experts,
        num_used=config.num_experts_used,
        expert_width=config.expert_width,
    )
    num_plain = config.num_hidden_layers - config.num_mixture_layers
    layers = [
        EncoderLayer(
            width,
            config.num_attention_heads,
            pre_norm=config.pre_norm,
            dropout_ratio=config.dropout_ratio,
            eps=eps,
            feed_forward=FeedForward if number < num_plain else mixture,
        )
        for number in range(config.num_hidden_layers)
    ]
    final_norm = nn.LayerNorm(width, eps) if config.pre_norm else nn.Identity()
    if config.num_joint_layers is None:
        return Encoder(layers, final_norm)
    return RemovingEncoder(layers, final_norm, config.num_joint_layers)
