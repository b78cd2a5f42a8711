"""Fine-tune on closely-matching pairs with and without modality dropout: the paper's claim on its downstream task.

Question: does modality dropout help, with both modalities and with one missing at test time? With --starts.arms: does
          ITM in place of RECON, or beside it, make a better start?
Command:  python experiments/modality_dropout.py [--data SOURCE] [--steps N] [--pairs.match label,colour,first_word]
          [--starts.arms recon,itm,recon+itm]
Cost:     3 pre-trainings of 1,000 steps and 24 fine-tunings of 8,000 pairs: about an hour on two CPU cores (tiny);
          three starts take nearly three times as long.
Result:   a run folder with the three pre-training runs, one JSON file a fine-tuning, and evaluation.json: a table with
          intervals, and a verdict. With --resume it goes on with the fine-tuning that it had come to.
"""

import sys
from collections.abc import Sequence

from mlim_ray.command_line.errors import plain_errors
from mlim_ray.command_line.experiment import parse_pretrain
from mlim_ray.config import TrainConfig
from mlim_ray.config.fine_tune import FineTuneConfig
from mlim_ray.config.pairs import PairsConfig
from mlim_ray.config.pairs_run import PairsRunConfig


def build() -> PairsRunConfig:
    """MLM + RECON as in the paper, pre-trained for 1,000 steps and not at all."""
    pairs = PairsConfig(from_scratch=True, num_train_positives=2_000, fine_tune=FineTuneConfig(num_epochs=8.0))
    return PairsRunConfig(train=TrainConfig(num_steps=1_000), pairs=pairs)


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment from the command line."""
    request = parse_pretrain(argv, build, __doc__)
    from mlim_ray.pipelines.modality_dropout import compare_dropout
    from mlim_ray.reporting.progress import say_json

    summary = compare_dropout(request)
    if request.json:
        say_json(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
