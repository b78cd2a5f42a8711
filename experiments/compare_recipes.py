"""Compare MLIM with recipes after its relatives, under one budget: objectives, maskings, embedders and encoders.

Question: which recipe learns most from these records, at what cost, and is any difference more than the noise of seeds?
Command:  python experiments/compare_recipes.py [--data SOURCE] [--steps N] [--compare.arms mlim,vilt_style] [--tasks T]
Cost:     9 recipes, each tuned over 3 learning rates and run with 3 seeds: 54 runs of 1,000 steps, about 4 hours on two
          CPU cores (the tiny model) without tasks; with --train.batch-size 32 --compare.tuning-steps 200 about one.
Result:   a run folder with every run, tables with intervals and a verdict, what each recipe costs, and a page. With
          --resume it goes on with the runs that it had come to.
"""

import sys
from collections.abc import Sequence

from mlim_ray.command_line.errors import plain_errors
from mlim_ray.command_line.experiment import parse_pretrain
from mlim_ray.config import TrainConfig
from mlim_ray.config.recipes_run import RecipesRunConfig


def build() -> RecipesRunConfig:
    """A thousand steps; of each run the last checkpoint is kept."""
    return RecipesRunConfig(train=TrainConfig(num_steps=1_000, num_checkpoints_kept=1))


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment from the command line."""
    request = parse_pretrain(argv, build, __doc__, {"--tasks": "compare.tasks"})
    from mlim_ray.pipelines.compare_recipes import compare_recipes
    from mlim_ray.reporting.progress import say_json

    summary = compare_recipes(request)
    if request.json:
        say_json(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
