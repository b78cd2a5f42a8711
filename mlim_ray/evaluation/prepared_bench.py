"""A bench made of a run's model and a prepared set."""

import numpy as np
import torch
from numpy.typing import NDArray

from mlim_ray.config.evaluate import EvaluateConfig
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.evaluation.bench import Bench, OnProgress
from mlim_ray.evaluation.examples import Examples, load_examples
from mlim_ray.evaluation.overlap import Survey
from mlim_ray.model import MlimModel
from mlim_ray.training.loaded_run import LoadedRun


def make_bench(
    run: LoadedRun,
    untrained: MlimModel,
    prepared: PreparedSet,
    survey: Survey,
    config: EvaluateConfig,
    device: torch.device,
    on_progress: OnProgress,
) -> Bench:
    """The model of a run over what it was not pre-trained on.

    Args:
        run: the run.
        untrained: its model before any step.
        prepared: the set; its texts were split with the run's vocabulary.
        survey: of this set.
        config: says how many records of each split there may be.
        device: where the models are put.
        on_progress: told by the tasks how far they are.

    Raises:
        ValueError: a held-out split has fewer than two records that it did not learn from.
    """
    test = _held_out(prepared, survey, "test", config.num_test)
    return Bench(
        run.model.to(device),
        untrained.to(device),
        run.tokenizer,
        load_examples(prepared, "train", config.num_train),
        _held_out(prepared, survey, "val", config.num_val),
        test,
        config.seed,
        on_progress,
        prepared.manifest.statistics,
        prepared.manifest.generated is not None,
        survey.titles_seen(test.records),
    )


def _held_out(prepared: PreparedSet, survey: Survey, split: str, limit: int) -> Examples:
    """The first records of a split that the model was not pre-trained on, at most `limit`."""
    examples = load_examples(prepared, split, limit)
    kept: NDArray[np.int64] = survey.untrained(examples.records.key_hash_R)
    if len(kept) < 2:
        raise ValueError(
            f"of the {len(examples)} {split} records of {prepared.path}, the model was not pre-trained on {len(kept)}, "
            "expected 2 or more; evaluate on other records"
        )
    return examples if len(kept) == len(examples) else examples.take(kept)
