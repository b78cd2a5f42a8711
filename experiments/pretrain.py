"""Pre-train one model on a catalogue: MLIM, or a recipe after one of its relatives.

Question: what does the paper's setting, or another's, learn from these records?
Command:  python experiments/pretrain.py [--data SOURCE] [--steps N] [--recipe NAME] [--config best.yaml]
Cost:     2,000 steps of 64 records: about 4 minutes on two CPU cores (the tiny model).
Result:   a run folder with the model, its metrics, the partner probe and a page.
"""

import sys
from collections.abc import Sequence

from mlim_ray.command_line.errors import plain_errors
from mlim_ray.command_line.experiment import parse_pretrain
from mlim_ray.config import PretrainConfig


def build() -> PretrainConfig:
    """The paper's setting throughout: MAM at 80 %, MLM + RECON."""
    return PretrainConfig()


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment from the command line."""
    request = parse_pretrain(argv, build, __doc__, recipes=True)
    from mlim_ray.pipelines.pretrain import pretrain
    from mlim_ray.reporting.progress import say_json

    summary = pretrain(request)
    if request.json:
        say_json(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
