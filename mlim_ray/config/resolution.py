"""How large the pictures of a run's steps are."""

from pydantic import Field

from mlim_ray.config.base import Section, ratio


class ResolutionConfig(Section):
    """Small pictures in the first steps (FastMIM: 128 pixels for a model of 224; FastMIM-P lets them grow); cells keep
    their pixels, so a small picture has fewer. The model, and all that measures it, have the size's own pictures."""

    start_ratio: float = Field(1.0, gt=0.0, le=1.0)
    """side of the first pictures as a share of the size's own, rounded to whole cells (FastMIM: 0.57); 1: as large as
    ever (MLIM)"""
    small_steps_ratio: float = ratio(1.0)
    """share of the steps before the pictures have their full size; 1: they never have it while the model trains
    (FastMIM)"""
    num_stages: int = Field(1, ge=1, le=64)
    """stages of these steps, equally long, each with larger pictures than the one before (FastMIM-P, whose own are not
    known); 1: all have the first ones' size"""
