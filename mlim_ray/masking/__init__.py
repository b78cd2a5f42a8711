"""Which words and image cells are hidden: one file per policy, pure numpy; `masks.py` draws them."""

from mlim_ray.masking.masks import Masks, draw_masks, hide, mode_names
from mlim_ray.masking.policy import Ratios

__all__ = ["Masks", "Ratios", "draw_masks", "hide", "mode_names"]
