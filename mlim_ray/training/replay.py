"""A second look at a batch that gave no finite gradient: its losses once more, record by record.

Legend: B records, M hidden pieces.
"""

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch

from mlim_ray.data import storage
from mlim_ray.model import MlimConfig, MlimModel
from mlim_ray.objectives import mlm_terms, recon_terms
from mlim_ray.training.batch import Batch
from mlim_ray.training.precision import autocast
from mlim_ray.training.tensors import to_tensors


@dataclass(frozen=True)
class ReplayedRecord:
    """One record's losses, as means over its own targets."""

    worker: int
    key: str
    """hash, 16 hex digits"""
    mlm: float | None
    """None without a hidden word"""
    recon: float | None


@dataclass(frozen=True)
class Replay:
    """What the batch gave again."""

    step: int
    gradient_norm: float
    """of all workers' records together"""
    records: list[ReplayedRecord]

    @property
    def non_finite(self) -> list[ReplayedRecord]:
        """Records whose loss is no number."""
        return [r for r in self.records if not all(np.isfinite(v) for v in (r.mlm, r.recon) if v is not None)]


def replay(place: str, precision: str | None = None) -> Replay:
    """Compute a kept batch again, on the CPU, from the weights it met.

    Args:
        place: `non_finite/step-<N>` in a run folder.
        precision: float32 or bfloat16; None: the run's own.

    Raises:
        ValueError: nothing was kept at `place`.
    """
    summary_path = storage.join(place, "summary.json")
    if not storage.exists(summary_path):
        raise ValueError(f"{place} holds no kept batch; expected a folder RUN/non_finite/step-<number>")
    summary: dict[str, Any] = json.loads(storage.read_bytes(summary_path))
    settings = summary["settings"]
    model = MlimModel(MlimConfig.from_dict(settings["model"]))
    model.load_state_dict(safetensors.torch.load(storage.read_bytes(storage.join(place, "weights.safetensors"))))
    model.train()
    batches = [_read_batch(storage.join(place, f"batch-{each['rank']:03d}.npz")) for each in summary["workers"]]
    losses, records = torch.zeros(()), []
    for worker, batch in enumerate(batches):
        if len(batch.key_hash_B) == 0:
            continue
        inputs = to_tensors(batch, torch.device("cpu"))
        with autocast("cpu", precision or settings["precision"]):
            logits_MV, reconstruction_B3HW = model(*inputs[:6])
        mlm = mlm_terms(logits_MV, inputs.token_ids_BT, inputs.token_hidden_BT)
        recon = recon_terms(reconstruction_B3HW, inputs.pixels_B3HW, inputs.cell_hidden_BN, settings["recon_target"])
        losses = losses + settings["mlm_weight"] * mlm.sum_B.sum() + settings["recon_weight"] * recon.sum_B.sum()
        for index, key in enumerate(batch.key_hash_B.tolist()):
            means = [_mean(terms.sum_B.detach()[index], terms.count_B[index]) for terms in (mlm, recon)]
            records.append(ReplayedRecord(worker, f"{key:016x}", *means))
    losses.backward()
    norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    return Replay(summary["step"], float(torch.stack(norms).norm()), records)


def _read_batch(path: str) -> Batch:
    with np.load(io.BytesIO(storage.read_bytes(path)), allow_pickle=False) as arrays:
        return Batch(**{name: arrays[name] for name in Batch._fields})


def _mean(total: torch.Tensor, count: torch.Tensor) -> float | None:
    return float(total / count) if count > 0 else None
