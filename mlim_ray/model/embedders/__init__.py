"""From a picture to the embeddings of its cells: one file per embedder, all with one interface.

An embedder is called with pictures [B, 3, H, W], float in [0, 1], and with the cells that are wanted, the visible ones,
as indices into the flattened [B * N]; it gives their embeddings [V, D].
"""

from torch import nn

from mlim_ray.model.blocks import Grid
from mlim_ray.model.configuration import MlimConfig
from mlim_ray.model.embedders.deep_cnn import DeepCnn
from mlim_ray.model.embedders.linear_patches import LinearPatches
from mlim_ray.model.embedders.shallow_cnn import ShallowCnn

__all__ = ["DeepCnn", "LinearPatches", "ShallowCnn", "make_embedder"]


def make_embedder(config: MlimConfig, grid: Grid) -> nn.Module:
    """The embedder of a model's kind, with fresh weights."""
    match config.embedder_kind:
        case "shallow_cnn":
            return ShallowCnn(config.embedder_channels, grid)
        case "linear_patches":
            return LinearPatches(config.hidden_size, grid)
        case "deep_cnn":
            return DeepCnn(config.embedder_channels, config.embedder_blocks, grid, config.embedder_blanks_hidden)
