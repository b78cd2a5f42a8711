"""The training loop: index -> batch -> masks -> losses -> update (contracts C1, C2, C3).

It knows no Ray: it is handed an iterator of batches and a `report` callable.

Legend: B records, N image cells, T token positions, H and W pixels.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mlim_ray.config import PretrainConfig
from mlim_ray.data.counter import draw
from mlim_ray.masking import mode_names
from mlim_ray.model import MlimModel
from mlim_ray.objectives import mlm_terms, recon_terms
from mlim_ray.training.batch import Batch
from mlim_ray.training.distributed import num_workers, rank, sum_over_workers
from mlim_ray.training.fingerprint import Fingerprint
from mlim_ray.training.meter import LossMeter
from mlim_ray.training.optimiser import learning_rate_at, make_optimiser
from mlim_ray.training.order import StreamOrder
from mlim_ray.training.tensors import BatchTensors, to_tensors

Report = Callable[[dict[str, Any]], None]


class Trainer:
    """A model under training; `step` is the run's position, and the only thing that a resumed run must know.

    Args:
        model: on its device.
        config: resolved, without any "auto".
        order: the order of the run's records.
    """

    def __init__(self, model: MlimModel, config: PretrainConfig, order: StreamOrder) -> None:
        self.model = model
        self.config = config
        self.order = order
        self.device = model.device
        self.step = 0
        self.optimiser = make_optimiser(model, config.train)
        self.meter = LossMeter(mode_names(config.masking), self.device)
        self.fingerprint = Fingerprint(self.device)
        self._forward: nn.Module = model
        if num_workers() > 1:
            device_ids = [self.device.index] if self.device.type == "cuda" else None
            self._forward = DistributedDataParallel(model, device_ids=device_ids)

    def run(
        self,
        batches: Iterator[Batch],
        stop_step: int,
        report: Report,
        save: Callable[[], None] | None = None,
    ) -> None:
        """Train on `batches`, which start at `step`, up to `stop_step`.

        Args:
            batches: this worker's part of each global batch.
            stop_step: the step to stop before.
            report: called on the first worker with a line of metrics every `log_every_steps`, and at the end.
            save: called on every worker when a checkpoint is due.
        """
        train = self.config.train
        self.model.train()
        clock = _Clock()
        while self.step < stop_step:
            with clock.waiting():
                batch = next(batches, None)
            if batch is None:
                raise RuntimeError(f"the feed ended before step {self.step} of {stop_step}")
            gradient_norm = self._update(batch)
            self.fingerprint.add(self.step, batch)
            self.step += 1
            is_last = self.step == train.num_steps
            if is_last or self.step % train.log_every_steps == 0:
                line = self._metrics(gradient_norm, clock)
                if rank() == 0:
                    report(line)
            if save is not None and (is_last or self.step % train.checkpoint_every_steps == 0):
                save()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the weights; loads with `weights_only=True`."""
        self.meter.gather()
        return {
            "step": self.step,
            "optimiser": self.optimiser.state_dict(),
            "meter": self.meter.table,
            "fingerprint": self.fingerprint.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`; the weights are loaded into the model by the caller."""
        self.step = state["step"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.fingerprint.load_state(state["fingerprint"])
        self.meter.table.copy_(state["meter"])
        if rank() != 0:
            self.meter.table.zero_()

    def _update(self, batch: Batch) -> Tensor:
        """One optimiser step; gives the gradient's norm before clipping."""
        train = self.config.train
        if self.config.model.dropout_ratio > 0.0:
            # Drawn from the position, so that a resumed run drops what the uninterrupted one would have.
            torch.manual_seed(int(draw(train.seed, self.step, rank())) >> 1)
        weight = 1.0 if len(batch.key_hash_B) else 0.0
        inputs = to_tensors(batch if weight else _blank_record(batch), self.device)
        with self._autocast():
            logits_MV, reconstruction_B3HW = self._forward(*inputs[:5])
        loss = self._loss(inputs, logits_MV, reconstruction_B3HW, weight)
        self.optimiser.zero_grad(set_to_none=True)
        # DDP averages gradients over workers; the loss is already divided by the global counts.
        (loss * num_workers()).backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), train.max_gradient_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate_at(self.step, train)
        self.optimiser.step()
        return norm

    def _loss(self, inputs: BatchTensors, logits_MV: Tensor, reconstruction_B3HW: Tensor, weight: float) -> Tensor:
        """This worker's share of the global batch's loss: its sums over the global counts (contract C3)."""
        mlm = mlm_terms(logits_MV, inputs.token_ids_BT, inputs.token_hidden_BT)
        recon = recon_terms(reconstruction_B3HW, inputs.pixels_B3HW, inputs.cell_hidden_BN, self.config.recon.target)
        counts = sum_over_workers(weight * torch.stack([mlm.count_B.sum(), recon.count_B.sum()])).clamp(min=1.0)
        if weight:
            self.meter.add(mlm, recon, inputs.mode_B)
        loss = self.config.mlm.weight * mlm.sum_B.sum() / counts[0]
        return weight * (loss + self.config.recon.weight * recon.sum_B.sum() / counts[1])

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.train.precision == "bfloat16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def _metrics(self, gradient_norm: Tensor, clock: "_Clock") -> dict[str, Any]:
        samples = self.order.samples_at(self.step)
        return {
            "step": self.step,
            "samples": samples,
            "epoch": samples / self.order.num_records,
            **self.fingerprint.read_and_reset(),
            **self.meter.read_and_reset(self.config.mlm.weight, self.config.recon.weight),
            "learning_rate": learning_rate_at(self.step - 1, self.config.train),
            "gradient_norm": float(gradient_norm),
            **clock.read_and_reset(samples),
        }


class _Clock:
    """Wall-clock figures of a run: records per second and the share of time spent waiting for data."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._waited_s = 0.0
        self._last_samples: int | None = None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        before = time.perf_counter()
        yield
        self._waited_s += time.perf_counter() - before

    def read_and_reset(self, samples: int) -> dict[str, float]:
        now = time.perf_counter()
        elapsed = max(now - self._last, 1e-9)
        figures = {"time/elapsed_s": now - self._start, "time/data_wait_ratio": self._waited_s / elapsed}
        if self._last_samples is not None:
            figures["time/samples_per_s"] = (samples - self._last_samples) / elapsed
        self._last, self._waited_s, self._last_samples = now, 0.0, samples
        return figures


def _blank_record(batch: Batch) -> Batch:
    """One record that counts for nothing, for a worker that has none in this step but must take part in it."""
    return Batch(*(np.zeros((1, *array.shape[1:]), array.dtype) for array in batch))._replace(
        num_tokens_B=np.ones(1, np.int16)
    )
