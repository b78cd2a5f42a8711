"""The partner probe as an evaluation, with intervals."""

from pydantic import Field

from mlim_ray.config.base import Section


class PartnerConfig(Section):
    """Losses with the true, another record's and no partner, over hidden ratios, on fixed seeded masks."""

    num_records: int = Field(1_024, ge=2)
    """test records that are probed (fewer where there are fewer)"""
    seed: int = Field(0, ge=0, lt=2**63)
    """seed of the masks and of the other records' partners; 0, as in a run's own evaluation, unless that was changed"""
