"""Compare masking settings with the same budget: MAM as in the paper, alternating, and fixed ratios.

Question: which masking learns most from these records, and is any difference more than the noise of seeds?
Command:  python experiments/compare_masking.py [--data SOURCE,SOURCE] [--steps N] [--tasks classification]
Cost:     15 runs of 1,000 steps a source: about 25 minutes on two CPU cores (the tiny model).
Result:   a run folder with every run, a table with intervals and a verdict for each source, and a page. With --resume
          it goes on with the runs that it had come to.
"""

import sys
from collections.abc import Sequence

from mlim_ray.command_line.errors import plain_errors
from mlim_ray.command_line.experiment import parse_pretrain
from mlim_ray.config import TrainConfig
from mlim_ray.config.compare import CompareRunConfig


def build() -> CompareRunConfig:
    """A thousand steps; of each run the last checkpoint is kept."""
    return CompareRunConfig(train=TrainConfig(num_steps=1_000, num_checkpoints_kept=1))


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment from the command line."""
    request = parse_pretrain(argv, build, __doc__, {"--tasks": "compare.tasks"})
    from mlim_ray.pipelines.compare_masking import compare_masking
    from mlim_ray.reporting.progress import say_json

    summary = compare_masking(request)
    if request.json:
        say_json(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
