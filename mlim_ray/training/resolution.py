"""Which steps of a run have small pictures, from the step's number alone (contract C2)."""

import math
from typing import NamedTuple

from mlim_ray.config import ResolutionConfig
from mlim_ray.model import MlimConfig


class Stage(NamedTuple):
    """Consecutive steps with pictures of one size, smaller than the model's."""

    stop_step: int
    """the first step after it"""
    num_cells: int
    image_size: int
    """pixels a side"""


def stages_of(config: ResolutionConfig, num_steps: int, shape: MlimConfig) -> tuple[Stage, ...]:
    """The stages of a run, which begin at step 0; after them, pictures have their full size.

    Raises:
        ValueError: the first pictures have no whole cell.
    """
    side = shape.image_size // shape.cell_size
    start = first_side(config, side)
    if start == side:
        return ()
    # Stages beyond the whole numbers of cells between the two have the size of the one before.
    stop_of: dict[int, int] = {}
    for number in range(config.num_stages):
        cells = start + (side - start) * number // config.num_stages
        stop_of[cells] = round(num_steps * config.small_steps_ratio * (number + 1) / config.num_stages)
    return tuple(Stage(stop, cells**2, cells * shape.cell_size) for cells, stop in stop_of.items())


def first_side(config: ResolutionConfig, side: int) -> int:
    """Cells in a row of the first pictures, where full ones have `side`. Raises as `stages_of` does."""
    cells = math.floor(config.start_ratio * side + 0.5)
    if cells == 0:
        raise ValueError(
            f"--resolution.start-ratio {config.start_ratio:g} leaves no whole cell of the {side} in a row of the "
            f"model's pictures; expected a share that does, such as {', '.join(_shares(side))}"
        )
    return cells


def _shares(side: int) -> list[str]:
    return [f"{cells / side:.3g}" for cells in range(1, min(side, 4) + 1)]
