"""What a run is evaluated by, and how much of a set that takes."""

from pydantic import Field

from mlim_ray.config.base import Section
from mlim_ray.config.classify import ClassifyConfig
from mlim_ray.config.fill import FillConfig
from mlim_ray.config.pairs import PairsConfig
from mlim_ray.config.partner import PartnerConfig
from mlim_ray.config.pictures import PicturesConfig
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.config.retrieve import RetrieveConfig


class EvaluateConfig(Section):
    """The set, and a section for each task."""

    tasks: tuple[str, ...] = ()
    """tasks to run; nothing: all that the set can serve"""
    num_train: int = Field(10_000, ge=2)
    """most training records that are read: what heads are trained on"""
    num_val: int = Field(2_000, ge=2)
    """most val records that are read: what choices are made by"""
    num_test: int = Field(5_000, ge=2)
    """most test records that are read: what figures are of"""
    seed: int = Field(0, ge=0, lt=2**32)
    """seed of all that evaluations draw: heads, orders, negatives, resampling"""
    prepare: PrepareConfig = Field(default_factory=PrepareConfig)
    partner: PartnerConfig = Field(default_factory=PartnerConfig)
    classification: ClassifyConfig = Field(default_factory=ClassifyConfig)
    retrieval: RetrieveConfig = Field(default_factory=RetrieveConfig)
    pairs: PairsConfig = Field(default_factory=PairsConfig)
    # A few minutes for all tasks on two cores, with a few attributes.
    fill: FillConfig = Field(default_factory=lambda: FillConfig(num_train=4_000))
    pictures: PicturesConfig = Field(default_factory=PicturesConfig)
