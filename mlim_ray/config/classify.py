"""How well a column of labels is told from pictures and texts."""

from pydantic import Field

from mlim_ray.config.base import Section
from mlim_ray.config.fine_tune import FineTuneConfig


class ClassifyConfig(Section):
    """Linear probe, nearest neighbours and fine-tuning, on the picture, the text and both."""

    column: str = "label"
    """what is told: label, or the name of an attribute that the set was prepared with"""
    num_train: int = Field(4_000, ge=2)
    """training records with a label that classifiers are trained on (fewer when the split has fewer)"""
    num_val: int = Field(1_000, ge=1)
    """val records that the penalty and the number of neighbours are chosen by"""
    num_test: int = Field(2_000, ge=1)
    """test records that the figures are of"""
    fine_tune: FineTuneConfig = Field(default_factory=FineTuneConfig)
    """how the whole encoder is trained on the labels"""
