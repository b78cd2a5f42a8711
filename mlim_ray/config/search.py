"""What a search tries, how long, and how it stops the weak."""

from typing import Self

from pydantic import Field, model_validator

from mlim_ray.config.base import Section


class SearchConfig(Section):
    """Ranges of the searched knobs and the budget of a search (our choice throughout; the paper reports no search)."""

    num_trials: int = Field(8, ge=1)
    """trials, the two references included"""
    max_samples: int = Field(16_000, ge=1)
    """records that one full trial sees"""
    num_rungs: int = Field(3, ge=1, le=8)
    """points at which trials are compared, the last one at max_samples"""
    reduction_factor: int = Field(3, ge=2)
    """one in so many trials passes a rung (ASHA)"""
    max_concurrent_trials: int = Field(0, ge=0)
    """trials at a time; 0: as many as the CPUs or GPUs allow"""
    workers_per_trial: int = Field(1, ge=1)
    """training workers of one trial"""
    min_light_ratio: float = Field(0.05, ge=0.0, le=1.0)
    """lower end of the light ratios"""
    max_light_ratio: float = Field(0.4, ge=0.0, le=1.0)
    """upper end of the light ratios"""
    min_heavy_ratio: float = Field(0.5, ge=0.0, le=1.0)
    """lower end of the heavy ratios"""
    max_heavy_ratio: float = Field(1.0, ge=0.0, le=1.0)
    """upper end of the heavy ratios"""
    min_recon_weight: float = Field(1.0, gt=0.0)
    """lower end of the RECON weight (searched on a log scale)"""
    max_recon_weight: float = Field(100.0, gt=0.0)
    """upper end of the RECON weight"""
    learning_rate_factor: float = Field(3.0, ge=1.0)
    """the learning rate is searched from the size's own divided by this to times this (log scale)"""

    @property
    def rungs(self) -> list[int]:
        """Samples at which trials are compared; the last is the full budget."""
        lowest = max(1, self.max_samples // self.reduction_factor ** (self.num_rungs - 1))
        below = [lowest * self.reduction_factor**level for level in range(self.num_rungs - 1)]
        return [*(rung for rung in below if rung < self.max_samples), self.max_samples]

    @model_validator(mode="after")
    def _ranges_have_room(self) -> Self:
        for name in ("light_ratio", "heavy_ratio", "recon_weight"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low > high:
                raise ValueError(f"min_{name} is {low:g} and max_{name} {high:g}; expected min_{name} <= max_{name}")
        return self
