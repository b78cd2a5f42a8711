"""What is measured while a run trains."""

from pydantic import Field

from mlim_ray.config.base import Section


class InRunConfig(Section):
    """Checkpoints that are measured on the run's own held-out records while training goes on (our choice)."""

    every_steps: int = Field(0, ge=0)
    """checkpoints of every so many steps are kept for good and measured by the probes; 0: only the finished model is"""
    tasks: tuple[str, ...] = ()
    """tasks of mlim-ray evaluate that these checkpoints are measured by as well; nothing: the two probes alone"""


def refuse_in_run(section: InRunConfig) -> None:
    """For what consists of many runs. Raises ValueError if they were to be measured while they train."""
    if section.every_steps:
        raise ValueError(
            f"evaluate.every_steps is {section.every_steps}, expected 0: only experiments/pretrain.py measures a run "
            "while it trains; give --evaluate.every-steps 0"
        )
