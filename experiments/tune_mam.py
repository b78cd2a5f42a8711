"""Search masking: the policy (MAM or another), its ratios, RECON's weight and target, and the learning rate.

Question: for this catalogue and this budget, which masking ratios and loss weights suit it?
Command:  python experiments/tune_mam.py [--data SOURCE] [--trials N] [--max-samples N] [--recipe NAME]
Cost:     12 trials and 12 confirming runs of at most 16,000 records: 5 minutes on two CPU cores (the tiny model).
Result:   a run folder with the answer and its intervals, best.yaml, trials.parquet, the leading model and a page.
"""

import sys
from collections.abc import Sequence

from mlim_ray.command_line.errors import plain_errors
from mlim_ray.command_line.experiment import parse_search
from mlim_ray.config import ProbeConfig, SearchRunConfig, TrainConfig


def build() -> SearchRunConfig:
    """A small search; its probes are smaller than pretrain's, since they are taken of every trial."""
    return SearchRunConfig(
        probe=ProbeConfig(num_records=256, linear_train_records=1_500), train=TrainConfig(warmup_ratio=0.1)
    )


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment from the command line."""
    request = parse_search(argv, build, __doc__)
    from mlim_ray.pipelines.search.search import search
    from mlim_ray.reporting.progress import say_json

    summary = search(request)
    if request.json:
        say_json(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
