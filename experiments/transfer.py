"""Do the masking settings that suit a small model suit a larger one?

Question: is the order of masking settings in a tiny model that in a small one, so that a cheap search is worth having?
Command:  python experiments/transfer.py [--data SOURCE] [--steps N] [--transfer.larger SIZE]
Cost:     20 runs of 1,000 steps in each size: half an hour for tiny and many hours for small on two CPU cores; better
          on a GPU.
Result:   a run folder with every run, the rank correlation of each measure with its interval, and a page. With --resume
          it goes on with the runs that it had come to. SOURCE has to be raw: each size takes pictures of its own size.
"""

import sys
from collections.abc import Sequence

from mlim_ray.command_line.errors import plain_errors
from mlim_ray.command_line.experiment import parse_pretrain
from mlim_ray.config import ModelConfig, TrainConfig
from mlim_ray.config.compare import CompareConfig
from mlim_ray.config.transfer import TransferRunConfig

ARMS = (
    *("mam", "mam-65", "mam-50", "mam-35"),
    *("alternating", "alternating-50"),
    *("independent-15", "independent-35", "independent-50", "independent-80"),
)


def build() -> TransferRunConfig:
    """Ten settings and two seeds."""
    return TransferRunConfig(
        train=TrainConfig(num_steps=1_000, num_checkpoints_kept=1),
        model=ModelConfig(size="tiny"),
        compare=CompareConfig(arms=ARMS, num_seeds=2),
    )


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment from the command line."""
    request = parse_pretrain(argv, build, __doc__, {"--tasks": "compare.tasks"})
    from mlim_ray.pipelines.transfer import run_transfer
    from mlim_ray.reporting.progress import say_json

    summary = run_transfer(request)
    if request.json:
        say_json(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
