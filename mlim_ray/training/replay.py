"""A second look at a batch that gave no finite gradient: its losses once more, record by record.

Legend: B records, T token positions.
"""

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch

from mlim_ray.config import PretrainConfig
from mlim_ray.data import storage
from mlim_ray.model import MlimConfig, MlimModel
from mlim_ray.objectives import Losses
from mlim_ray.training.batch import Batch
from mlim_ray.training.peers import Meeting
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
    others: dict[str, float | None]
    """of the run's other objectives, by name"""


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
        return [
            record
            for record in self.records
            if not all(np.isfinite(v) for v in (record.mlm, record.recon, *record.others.values()) if v is not None)
        ]


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
    config = PretrainConfig.model_validate_json(json.dumps(settings["config"]))
    losses = Losses(MlimModel(MlimConfig.from_dict(settings["model"])), config)
    losses.load_state_dict(safetensors.torch.load(storage.read_bytes(storage.join(place, "weights.safetensors"))))
    losses.train()
    batches = [_read_batch(storage.join(place, f"batch-{each['rank']:03d}.npz")) for each in summary["workers"]]
    total, records = torch.zeros(()), []
    texts = [(batch.token_ids_BT, batch.num_tokens_B) for batch in batches]
    for worker, batch in enumerate(batches):
        if len(batch.key_hash_B) == 0:
            continue
        peers = None
        if losses.needs_peers:
            # What workers exchange beside texts is not exchanged anew.
            meeting = Meeting.of(batch, texts, worker, config.train.seed, torch.device("cpu"), in_parts=True)
            peers = meeting.peers(0, len(batch.key_hash_B))
        inputs = to_tensors(batch, torch.device("cpu"))
        with autocast("cpu", precision or settings["precision"]):
            terms = dict(zip(losses.weights, losses(inputs, peers), strict=True))
        total = total + sum(losses.weights[name] * each.sum_B.sum() for name, each in terms.items())
        for index, key in enumerate(batch.key_hash_B.tolist()):
            means = {name: _mean(each.sum_B.detach()[index], each.count_B[index]) for name, each in terms.items()}
            mlm, recon = means.pop("mlm"), means.pop("recon")
            records.append(ReplayedRecord(worker, f"{key:016x}", mlm, recon, means))
    total.backward()
    norms = [p.grad.norm() for p in losses.parameters() if p.grad is not None]
    return Replay(summary["step"], float(torch.stack(norms).norm()), records)


def _read_batch(path: str) -> Batch:
    with np.load(io.BytesIO(storage.read_bytes(path)), allow_pickle=False) as arrays:
        return Batch(**{name: arrays[name] for name in Batch._fields})


def _mean(total: torch.Tensor, count: torch.Tensor) -> float | None:
    return float(total / count) if count > 0 else None
