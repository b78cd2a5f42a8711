"""The shape of a model's weights, nothing about training."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from mlim_ray.config import AUTO, ModelConfig, ModelSize
from mlim_ray.config.embedders import DeepCnnConfig, LinearPatchesConfig, ShallowCnnConfig
from mlim_ray.config.encoders import MixtureConfig, SingleStreamConfig
from mlim_ray.model.sizes import SIZES, Shape

EncoderKind = Literal["single_stream", "mixture"]
EmbedderKind = Literal["shallow_cnn", "linear_patches", "deep_cnn"]


@dataclass(frozen=True)
class MlimConfig:
    """Shape of an MLIM model. Build one for a size and a vocabulary with `for_size`."""

    image_size: int = 32
    embedder_kind: EmbedderKind = "shallow_cnn"
    embedder_channels: tuple[int, ...] = (16, 48, 128)
    """of each halving of the picture; the last one, which linear patches have alone, is the encoder's width"""
    embedder_blocks: int = 0
    """of each halving in a deep CNN"""
    embedder_blanks_hidden: bool = False
    """whether a deep CNN sees hidden cells grey"""
    decoder_channels: tuple[int, ...] = (64, 32)
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    encoder_kind: EncoderKind = "single_stream"
    num_mixture_layers: int = 0
    """last layers that are mixtures of experts"""
    num_experts: int = 0
    num_experts_used: int = 0
    """experts that each cell and token goes through"""
    expert_width_ratio: float = 1.0
    """an expert's hidden width over four times the encoder's"""
    num_joint_layers: int | None = None
    """last layers that see hidden cells; None: all do"""
    pre_norm: bool = True
    vocab_size: int = 3_000
    mask_token_id: int = 4
    pad_token_id: int = 0
    max_tokens: int = 24
    dropout_ratio: float = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        levels = len(self.embedder_channels)
        if self.embedder_kind != "linear_patches" and 2**levels != self.cell_size:
            raise ValueError(
                f"embedder_channels has {levels} levels and decoder_channels {len(self.decoder_channels)}; expected "
                "one fewer in the decoder, whose last level gives the colours"
            )
        if self.image_size % self.cell_size:
            raise ValueError(
                f"image_size {self.image_size} cannot be cut into cells of {self.cell_size} pixels; expected a multiple"
            )

        for name in ("num_mixture_layers", "num_joint_layers"):
            most = getattr(self, name)
            if most is not None and most > self.num_hidden_layers:
                raise ValueError(
                    f"{name} is {most}, and the encoder has {self.num_hidden_layers} layers; expected at most so many"
                )

    @property
    def hidden_size(self) -> int:
        """Width of the encoder."""
        return self.embedder_channels[-1]

    @property
    def expert_width(self) -> int:
        """Hidden width of an expert of a mixture."""
        return max(1, round(4 * self.hidden_size * self.expert_width_ratio))

    @property
    def cell_size(self) -> int:
        """Side of an image cell in pixels: the decoder doubles a cell's side with each of its levels."""
        side: int = 2 ** (len(self.decoder_channels) + 1)
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
        """The config of MLIM's own parts in a size, for a tokenizer's vocabulary."""
        return cls.of(
            ModelConfig(size=size, dropout_ratio=dropout_ratio),
            vocab_size=vocab_size,
            mask_token_id=mask_token_id,
            pad_token_id=pad_token_id,
            max_tokens=max_tokens,
        )

    @classmethod
    def of(cls, model: ModelConfig, *, vocab_size: int, mask_token_id: int, pad_token_id: int, max_tokens: int) -> Self:
        """The config of the parts that a run asks for, for a tokenizer's vocabulary.

        Raises:
            ValueError: the size's pictures cannot be cut into cells of `model.cell_size`.
        """
        assert model.size != AUTO, "sizes are resolved before a model is built"
        shape = SIZES[model.size].with_cells(model.cell_size)
        return cls(
            image_size=shape.image_size,
            **_embedder(model, shape),
            decoder_channels=shape.decoder_channels,
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads,
            **_encoder(model),
            num_joint_layers=model.num_joint_layers,
            pre_norm=shape.pre_norm,
            vocab_size=vocab_size,
            mask_token_id=mask_token_id,
            pad_token_id=pad_token_id,
            max_tokens=max_tokens,
            dropout_ratio=model.dropout_ratio,
        )


def _embedder(model: ModelConfig, shape: Shape) -> dict[str, Any]:
    width = shape.embedder_channels[-1]
    match model.embedder:
        case ShallowCnnConfig():
            return {"embedder_channels": shape.embedder_channels}
        case LinearPatchesConfig():
            return {"embedder_kind": "linear_patches", "embedder_channels": (width,)}
        case DeepCnnConfig() as deep:
            halvings = reversed(range(len(shape.embedder_channels)))
            return {
                "embedder_kind": "deep_cnn",
                "embedder_channels": tuple(max(4, width >> halving) for halving in halvings),
                "embedder_blocks": deep.num_blocks,
                "embedder_blanks_hidden": deep.blanks_hidden,
            }


def _encoder(model: ModelConfig) -> dict[str, Any]:
    match model.encoder:
        case SingleStreamConfig():
            return {}
        case MixtureConfig() as mixture:
            return {
                "encoder_kind": "mixture",
                "num_mixture_layers": mixture.num_layers,
                "num_experts": mixture.num_experts,
                "num_experts_used": mixture.num_used,
                "expert_width_ratio": mixture.expert_width_ratio,
            }
