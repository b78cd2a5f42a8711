"""The model's config as transformers keeps it: the shape of the weights, nothing about training."""

from typing import Any

from transformers import PretrainedConfig

from mlim_ray.config import ModelSize
from mlim_ray.model.sizes import SIZES


class MlimConfig(PretrainedConfig):
    """Shape of an MLIM model. Build one for a size and a vocabulary with `for_size`."""

    model_type = "mlim"

    def __init__(
        self,
        image_size: int = 32,
        embedder_channels: tuple[int, ...] = (16, 48, 128),
        decoder_channels: tuple[int, ...] = (64, 32),
        num_hidden_layers: int = 3,
        num_attention_heads: int = 4,
        pre_norm: bool = True,
        vocab_size: int = 3_000,
        mask_token_id: int = 4,
        pad_token_id: int = 0,
        max_tokens: int = 24,
        dropout_ratio: float = 0.0,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        **kwargs: Any,
    ) -> None:
        self.image_size = image_size
        self.embedder_channels = tuple(embedder_channels)
        self.decoder_channels = tuple(decoder_channels)
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.pre_norm = pre_norm
        self.vocab_size = vocab_size
        self.mask_token_id = mask_token_id
        self.max_tokens = max_tokens
        self.dropout_ratio = dropout_ratio
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        super().__init__(pad_token_id=pad_token_id, **kwargs)

    @property
    def hidden_size(self) -> int:
        """Width of the encoder."""
        return self.embedder_channels[-1]

    @property
    def cell_size(self) -> int:
        """Side of an image cell in pixels."""
        side: int = 2 ** len(self.embedder_channels)
        return side

    @property
    def num_cells(self) -> int:
        """Cells of the image grid, N."""
        return (self.image_size // self.cell_size) ** 2

    @classmethod
    def for_size(
        cls,
        size: ModelSize,
        *,
        vocab_size: int,
        mask_token_id: int,
        pad_token_id: int,
        max_tokens: int,
        dropout_ratio: float = 0.0,
    ) -> "MlimConfig":
        """The config of a size for a tokenizer's vocabulary."""
        shape = SIZES[size]
        return cls(
            image_size=shape.image_size,
            embedder_channels=shape.embedder_channels,
            decoder_channels=shape.decoder_channels,
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads,
            pre_norm=shape.pre_norm,
            vocab_size=vocab_size,
            mask_token_id=mask_token_id,
            pad_token_id=pad_token_id,
            max_tokens=max_tokens,
            dropout_ratio=dropout_ratio,
        )
