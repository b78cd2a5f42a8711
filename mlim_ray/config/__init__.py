"""Every knob of a run: one file per section, one frozen class per part."""

from mlim_ray.config.base import AUTO, Section
from mlim_ray.config.masking import AlternatingConfig, IndependentConfig, MamConfig, MaskingConfig
from mlim_ray.config.model import ModelConfig, ModelSize
from mlim_ray.config.objectives import MlmConfig, ReconConfig
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.config.probe import ProbeConfig
from mlim_ray.config.run import PretrainConfig, SearchRunConfig
from mlim_ray.config.search import SearchConfig
from mlim_ray.config.train import FeedConfig, TrainConfig

__all__ = [
    "AUTO",
    "AlternatingConfig",
    "FeedConfig",
    "IndependentConfig",
    "MamConfig",
    "MaskingConfig",
    "MlmConfig",
    "ModelConfig",
    "ModelSize",
    "PrepareConfig",
    "PretrainConfig",
    "ProbeConfig",
    "ReconConfig",
    "SearchConfig",
    "SearchRunConfig",
    "Section",
    "TrainConfig",
]
