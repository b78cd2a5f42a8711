"""All that a run's `evaluation.json` says about its model."""

from dataclasses import asdict
from typing import Any

from mlim_ray.evaluation.held_out import HeldOut
from mlim_ray.evaluation.limits import ProbeLimits
from mlim_ray.evaluation.linear_probe import linear_probe
from mlim_ray.evaluation.partner_probe import PAPER_RATIO, partner_measures, probe_partners
from mlim_ray.model import MlimModel

Evaluation = dict[str, Any]


def evaluate(
    model: MlimModel, held_out: HeldOut, limits: ProbeLimits | None, baselines: dict[str, float] | None
) -> Evaluation:
    """Partner probe, with limits where they are known, and linear probe beside its baselines.

    Args:
        model: the model to measure.
        held_out: the records to measure it on.
        limits: from `limits_of`.
        baselines: from `linear_probe.baselines`; None where there are no labels.
    """
    losses = probe_partners(model, held_out.probe, wrong_partners=True)
    at = [asdict(entry) | {"mlm_limit": None, "recon_limit": None} for entry in losses]
    if limits is not None:
        for entry, mlm, recon in zip(at, limits.mlm, limits.recon, strict=True):
            entry |= {"mlm_limit": mlm, "recon_limit": recon}
    probe = held_out.probe
    evaluation: Evaluation = {
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "probe": {
            "num_records": len(probe.records.key_hash_R),
            "split": held_out.split,
            "score": partner_measures(losses, probe)["probe"],
            "unigram_entropy": probe.unigram_entropy,
            "pixel_variance": probe.pixel_variance,
            "at": at,
            "recon_title_limit": None if limits is None else list(limits.recon_from_title),
        },
        "linear_probe": None,
    }
    if held_out.labelled_train is not None and held_out.labelled_held_out is not None:
        evaluation["linear_probe"] = {
            "num_train": len(held_out.labelled_train.labels),
            "num_held_out": len(held_out.labelled_held_out.labels),
            "num_labels": len(set(held_out.labelled_train.labels)),
            **asdict(linear_probe(model, held_out.labelled_train, held_out.labelled_held_out)),
            "baselines": baselines,
        }
    return evaluation


def paper_figures(evaluation: Evaluation) -> dict[str, float]:
    """The six losses of the paper's figure, at 80 % hidden."""
    at = next(entry for entry in evaluation["probe"]["at"] if entry["hidden_ratio"] == PAPER_RATIO)
    names = ("mlm_paired", "mlm_shuffled", "mlm_blank", "recon_paired", "recon_shuffled", "recon_blank")
    return {name: at[name] for name in names}
