"""The partner probe and the linear probe that every run is measured by."""

from typing import Literal

from pydantic import Field

from mlim_ray.config.base import Section


class ProbeConfig(Section):
    """Fixed seeded masks on held-out records; the same for every trial of a search (contract C5)."""

    num_records: int = Field(1_024, ge=2)
    """held-out records probed (fewer when the split has fewer)"""
    split: Literal["val", "test"] = "val"
    """split that the held-out records come from"""
    seed: int = Field(0, ge=0, lt=2**63)
    """seed of the probe's masks and of the shuffled partners"""
    linear_train_records: int = Field(4_000, ge=1)
    """training records that the linear probe is fitted on"""
