"""Every knob of a run: one file per section, one frozen class per part."""

from mlim_ray.config.base import AUTO, Section
from mlim_ray.config.masking import (
    AlternatingConfig,
    BlockwiseConfig,
    IndependentConfig,
    MamConfig,
    MaskingConfig,
    TextAttentiveConfig,
)
from mlim_ray.config.model import ModelConfig, ModelSize
from mlim_ray.config.objectives import (
    BalanceConfig,
    FeatureReconConfig,
    HogReconConfig,
    ImageTargetConfig,
    ItcConfig,
    ItmConfig,
    MlmConfig,
    NormalisedReconConfig,
    ReconConfig,
)
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.config.probe import ProbeConfig
from mlim_ray.config.resolution import ResolutionConfig
from mlim_ray.config.run import PretrainConfig, SearchRunConfig
from mlim_ray.config.search import SearchConfig
from mlim_ray.config.train import FeedConfig, TrainConfig

__all__ = [
    "AUTO",
    "AlternatingConfig",
    "BalanceConfig",
    "BlockwiseConfig",
    "FeatureReconConfig",
    "FeedConfig",
    "HogReconConfig",
    "ImageTargetConfig",
    "IndependentConfig",
    "ItcConfig",
    "ItmConfig",
    "MamConfig",
    "MaskingConfig",
    "MlmConfig",
    "ModelConfig",
    "ModelSize",
    "NormalisedReconConfig",
    "PrepareConfig",
    "PretrainConfig",
    "ProbeConfig",
    "ReconConfig",
    "ResolutionConfig",
    "SearchConfig",
    "SearchRunConfig",
    "Section",
    "TextAttentiveConfig",
    "TrainConfig",
]
