"""How a picture's cells become embeddings: one class per embedder, chosen by its `kind`."""

from typing import Annotated, Literal

from pydantic import Field

from mlim_ray.config.base import Section


class ShallowCnnConfig(Section):
    """2x2 convolutions without overlap (MLIM), so that each pixel feeds exactly one cell.

    The paper gives 7 "layers" and about 200 K parameters; how many of them halve the picture and how wide they are is
    not known (our choice, `mlim_ray.model.sizes`).
    """

    kind: Literal["shallow_cnn"] = "shallow_cnn"
    """image embedder: stacked convolutions that read each pixel once"""


class LinearPatchesConfig(Section):
    """A cell's pixels through one matrix (ViLT, after ViT)."""

    kind: Literal["linear_patches"] = "linear_patches"
    """image embedder: one matrix for all cells"""


class DeepCnnConfig(Section):
    """Residual 3x3 convolutions (after ResNet, as in Pixel-BERT): masking after them leaks hidden pixels.

    Depth, widths and norms are our choice; see `mlim_ray.model.embedders.deep_cnn`.
    """

    kind: Literal["deep_cnn"] = "deep_cnn"
    """image embedder: residual convolutions that also read a cell's neighbours"""
    num_blocks: int = Field(2, ge=1)
    """residual blocks of two convolutions at each halving of the picture (2: ResNet-18's)"""
    blanks_hidden: bool = False
    """make the pixels of hidden cells grey before the embedder; otherwise they leak into their visible neighbours"""


EmbedderConfig = Annotated[ShallowCnnConfig | LinearPatchesConfig | DeepCnnConfig, Field(discriminator="kind")]
