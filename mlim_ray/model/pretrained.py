"""The model as transformers knows it: what `AutoModel.from_pretrained("RUN/model")` gives.

Importing this module registers it with transformers' Auto classes. Nothing that trains or measures needs it.
"""

from collections.abc import Callable
from typing import Any

from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from mlim_ray.model.configuration import MlimConfig
from mlim_ray.model.mlim import MlimModel


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


class MlimPreTrainedModel(MlimModel, PreTrainedModel):
    """`MlimModel` with transformers' reading, writing and the rest; its weights have the same names."""

    config_class = MlimPreTrainedConfig
    base_model_prefix = "mlim"
    main_input_name = "pixels_B3HW"

    config: MlimPreTrainedConfig
    # Known to type checkers: torch's modules answer for any name.
    post_init: Callable[[], None]
    save_pretrained: Callable[..., None]

    def __init__(self, config: MlimPreTrainedConfig) -> None:
        PreTrainedModel.__init__(self, config)
        self._add_layers(config.shape)
        self.post_init()

    @classmethod
    def of(cls, model: MlimModel) -> "MlimPreTrainedModel":
        """A copy of a model."""
        out = cls(MlimPreTrainedConfig(**model.config.to_dict()))
        out.load_state_dict(model.state_dict())
        return out


AutoConfig.register(MlimPreTrainedConfig.model_type, MlimPreTrainedConfig, exist_ok=True)
AutoModel.register(MlimPreTrainedConfig, MlimPreTrainedModel, exist_ok=True)
