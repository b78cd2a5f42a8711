"""The shape of a model's weights, nothing about training."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from mlim_ray.config import ModelSize
from mlim_ray.model.sizes import SIZES


@dataclass(frozen=True)
class MlimConfig:
    """Shape of an MLIM model. Build one for a size and a vocabulary with `for_size`."""

    image_size: int = 32
    embedder_channels: tuple[int, ...] = (16, 48, 128)
    decoder_channels: tuple[int, ...] = (64, 32)
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    pre_norm: bool = True
    vocab_size: int = 3_000
    mask_token_id: int = 4
    pad_token_id: int = 0
    max_tokens: int = 24
    dropout_ratio: float = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12

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

    def to_dict(self) -> dict[str, Any]:
        """All fields by name; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The config that these fields describe; others, such as transformers adds, are passed over, and lists are as
        good as tuples."""
        known: dict[str, Any] = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        for name, value in known.items():
            known[name] = tuple(value) if isinstance(value, list) else value
        return cls(**known)

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
    ) -> Self:
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
