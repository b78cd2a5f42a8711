"""The model as transformers knows it: what `AutoModel.from_pretrained("RUN/model")` gives.

Importing this module registers it, and its processor, with transformers' Auto classes; `import mlim_ray` has that done
as soon as somebody imports those. Nothing that trains or measures needs it.

Legend: B records, N cells, T token positions, D width, V vocabulary, H, W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoProcessor, PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from mlim_ray.model.configuration import MlimConfig
from mlim_ray.model.mlim import MlimModel
from mlim_ray.model.named_inputs import named_inputs
from mlim_ray.model.pooling import pooled_states
from mlim_ray.model.processor import MlimImageProcessor, MlimProcessor


class MlimPreTrainedConfig(PretrainedConfig):
    """The fields of `MlimConfig`, by the same names, in transformers' keeping."""

    model_type = "mlim"

    def __init__(self, **kwargs: Any) -> None:
        for name, value in MlimConfig.from_dict(kwargs).to_dict().items():
            kwargs.pop(name, None)
            setattr(self, name, value)
        super().__init__(pad_token_id=self.pad_token_id, **kwargs)

    @property
    def shape(self) -> MlimConfig:
        """The same as the model itself has it."""
        return MlimConfig.from_dict(self.__dict__)

    @property
    def hidden_size(self) -> int:
        """Width of the encoder."""
        return self.shape.hidden_size

    @property
    def cell_size(self) -> int:
        """Side of an image cell in pixels."""
        return self.shape.cell_size

    @property
    def num_cells(self) -> int:
        """Cells of the image grid, N."""
        return self.shape.num_cells


@dataclass
class MlimOutput(ModelOutput):
    """States and predictions of a batch; every field is given."""

    last_hidden_state: Tensor | None = None
    """[B, N + T, D]: the cells, then the tokens, zeros at padding"""
    pooler_output: Tensor | None = None
    """[B, D], one state for each record, of what was shown of it"""
    logits: Tensor | None = None
    """[B, T, V], what each token may be; worth something where the input has [MASK]"""
    reconstruction: Tensor | None = None
    """[B, 3, H, W], the whole picture in [0, 1]"""


class MlimPreTrainedModel(MlimModel, PreTrainedModel):
    """`MlimModel` with transformers' reading, writing and the rest; its weights have the same names.

    It is called as transformers' models are: `model(**processor(images=..., text=...))`.
    """

    config_class = MlimPreTrainedConfig
    base_model_prefix = "mlim"
    main_input_name = "input_ids"

    config: MlimPreTrainedConfig
    # Known to type checkers: torch's modules answer for any name.
    post_init: Callable[[], None]
    save_pretrained: Callable[..., None]

    def __init__(self, config: MlimPreTrainedConfig) -> None:
        PreTrainedModel.__init__(self, config)
        self._add_layers(config.shape)
        self.post_init()

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        bool_masked_pos: Tensor | None = None,
    ) -> MlimOutput:
        """All that the model says of a batch, where `MlimModel.forward` gives what losses are taken of.

        The arguments are those of `named_inputs`, and it raises as that does.
        """
        inputs = named_inputs(self, input_ids, attention_mask, pixel_values, bool_masked_pos)
        states = self.encode(*inputs)
        return MlimOutput(
            last_hidden_state=torch.cat([states.cells_BND, states.tokens_BTD], 1),
            pooler_output=pooled_states(states.cells_BND, states.tokens_BTD, *inputs[2:]),
            logits=self.mlm_logits(states.tokens_BTD),
            reconstruction=self.reconstruct(states.cells_BND),
        )

    @classmethod
    def of(cls, model: MlimModel) -> "MlimPreTrainedModel":
        """A copy of a model."""
        out = cls(MlimPreTrainedConfig(**model.config.to_dict()))
        out.load_state_dict(model.state_dict())
        return out


AutoConfig.register(MlimPreTrainedConfig.model_type, MlimPreTrainedConfig, exist_ok=True)
AutoModel.register(MlimPreTrainedConfig, MlimPreTrainedModel, exist_ok=True)
AutoImageProcessor.register(MlimPreTrainedConfig, image_processor_classes={"pil": MlimImageProcessor}, exist_ok=True)
AutoProcessor.register(MlimPreTrainedConfig, MlimProcessor, exist_ok=True)
