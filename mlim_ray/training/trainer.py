"""The training loop: index -> batch -> masks -> losses -> update (contracts C1, C2, C3).

It knows no Ray: it is handed an iterator of batches and a `report` callable.

Legend: B records, N image cells, T token positions, H and W pixels.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mlim_ray.config import PretrainConfig
from mlim_ray.data.counter import draw
from mlim_ray.masking import mode_names
from mlim_ray.model import MlimModel
from mlim_ray.objectives import Losses, LossTerms, Peers
from mlim_ray.training.batch import Batch
from mlim_ray.training.clock import Clock
from mlim_ray.training.compilation import compile_model
from mlim_ray.training.control import Control
from mlim_ray.training.device_feed import DeviceFeed, Part, Step
from mlim_ray.training.distributed import num_workers, rank, sum_over_workers, time_reductions
from mlim_ray.training.fingerprint import Fingerprint
from mlim_ray.training.meter import LossMeter
from mlim_ray.training.non_finite import NonFiniteGuard, require_finite
from mlim_ray.training.optimiser import learning_rate_at, make_optimiser
from mlim_ray.training.order import StreamOrder
from mlim_ray.training.peers import meet
from mlim_ray.training.precision import autocast
from mlim_ray.training.throughput import Throughput

Report = Callable[[dict[str, Any]], None]


class StepCounts(NamedTuple):
    """Of the global batch and all workers, known before a step is computed."""

    targets: tuple[int, ...]
    """of each loss"""
    records: int
    stopping: int
    """workers that wish to stop"""
    meeting: int
    """workers that wish to meet"""


class Trainer:
    """A model under training; `step` is the run's position, and the only thing that a resumed run must know.

    Args:
        model: on its device.
        config: resolved, without any "auto".
        order: the order of the run's records.
        run: the run folder, where a batch without a finite gradient is kept; None keeps none.
    """

    def __init__(self, model: MlimModel, config: PretrainConfig, order: StreamOrder, run: str | None = None) -> None:
        self.model = model
        self.config = config
        self.order = order
        self.device = model.device
        self.step = 0
        self.losses = Losses(model, config)
        self.optimiser = make_optimiser(self.losses, config.train)
        self.meter = LossMeter(tuple(self.losses.weights), mode_names(config.masking), self.device)
        self.guard = NonFiniteGuard(run, config.train.on_non_finite)
        self.clock = Clock()
        self.num_left_out = 0
        self.throughput = Throughput(model.config, config.train, self.device)
        model.encoder.activation_checkpointing = config.train.activation_checkpointing
        self.compile_failure = compile_model(model, config.train.precision) if config.train.compile else None
        self._last_line: dict[str, Any] | None = None
        self.fingerprint = Fingerprint(self.device)
        self._forward: nn.Module = self.losses
        if num_workers() > 1:
            device_ids = [self.device.index] if self.device.type == "cuda" else None
            self._forward = DistributedDataParallel(self.losses, device_ids=device_ids, broadcast_buffers=False)
            time_reductions(self._forward, lambda seconds: self.clock.add("communication", seconds))

    def run(
        self,
        batches: Iterator[Batch],
        stop_step: int,
        report: Report,
        save: Callable[[], None] | None = None,
        control: Control | None = None,
    ) -> None:
        """Train on `batches`, which start at `step`, up to `stop_step`, or to where a worker wished to stop.

        Args:
            batches: this worker's part of each global batch.
            stop_step: the step to stop before.
            report: called on the first worker with a line of metrics every `log_every_steps`, and at the end.
            save: called on every worker when a checkpoint is due.
            control: what else may come between steps.

        Raises:
            NonFiniteError: a gradient or a weight is no number, and the config says to stop.
        """
        train = self.config.train
        control = control if control is not None else Control()
        self.losses.train()
        if self.step == 0:
            for objective in self.losses:
                objective.begin(self.model)
        self.throughput.restart()
        feed = DeviceFeed(batches, stop_step - self.step, self.device, train.micro_batch_size, self.clock)
        while self.step < stop_step:
            step = feed.take()
            if step is None:
                raise RuntimeError(f"the feed ended before step {self.step} of {stop_step}")
            self.throughput.add(step.batch)
            counts = self._count(step.batch, control)
            due = self.order.samples_at(self.step + 1) - self.order.samples_at(self.step)
            self.num_left_out += due - counts.records
            gradient_norm = self._update(step, counts, feed)
            self.fingerprint.add(self.step, step.batch)
            self.step += 1
            is_last = self.step == train.num_steps
            if is_last or self.step % train.log_every_steps == 0:
                self._last_line = self._metrics(gradient_norm)
                if rank() == 0:
                    report(self._last_line)
            stops = counts.stopping > 0
            is_due = is_last or stops or self.step % train.checkpoint_every_steps == 0
            if counts.meeting > 0:
                is_due |= control.meet(self._last_line)
            if save is not None and is_due:
                require_finite(self.step, self.model.state_dict() | self.losses.objectives.state_dict())
                with self.clock.spending("checkpoint_wait"):
                    save()
            if stops:
                return

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the weights; loads with `weights_only=True`."""
        self.meter.gather()
        return {
            "step": self.step,
            "optimiser": self.optimiser.state_dict(),
            "meter": self.meter.table,
            "num_skipped": self.guard.num_skipped,
            "fingerprint": self.fingerprint.state(),
            "num_left_out": self.num_left_out,
            "objectives": self.losses.objectives.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`; the weights are loaded into the model by the caller."""
        self.step = state["step"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.fingerprint.load_state(state["fingerprint"])
        self.meter.table.copy_(state["meter"])
        if rank() != 0:
            self.meter.table.zero_()
        self.guard.num_skipped = state["num_skipped"]
        self.num_left_out = state["num_left_out"]
        # A run that began before there were others has none.
        self.losses.objectives.load_state_dict(state.get("objectives", {}))

    def _count(self, batch: Batch, control: Control) -> StepCounts:
        targets = self.losses.num_targets(batch.cell_hidden_BN, batch.token_hidden_BT)
        own = (*targets, len(batch.key_hash_B), control.wants_stop(), control.wants_meeting())
        # Whole numbers beyond 2^24 have no place in single precision.
        counts = torch.tensor(own, dtype=torch.float64, device=self.device)
        with self.clock.spending("communication") if num_workers() > 1 else contextlib.nullcontext():
            *totals, records, stopping, meeting = map(int, sum_over_workers(counts).tolist())
        return StepCounts(tuple(totals), records, stopping, meeting)

    def _update(self, step: Step, counts: StepCounts, feed: DeviceFeed) -> float:
        """One optimiser step; gives the gradient's norm before clipping."""
        train = self.config.train
        if self.config.model.dropout_ratio > 0.0:
            # Drawn from the position, so that a resumed run drops what the uninterrupted one would have.
            torch.manual_seed(int(draw(train.seed, self.step, rank())) >> 1)
        self.optimiser.zero_grad(set_to_none=True)
        losses, start = [], 0
        in_parts = train.micro_batch_size is not None
        meeting = meet(step.batch, train.seed, self.device, in_parts=in_parts) if self.losses.needs_peers else None
        for number, part in enumerate(step.parts):
            peers = None if meeting is None else meeting.peers(start, part.num_records)
            # Gradients of the parts add up; workers exchange them with the last one.
            with contextlib.nullcontext() if number == len(step.parts) - 1 else self._without_exchange():
                losses.append(self._backward(part, peers, counts))
            start += part.num_records
        # Before the norm is read, which waits for a GPU to be done.
        feed.prefetch()
        norm = float(nn.utils.clip_grad_norm_(self.losses.parameters(), train.max_gradient_norm))
        if math.isfinite(norm):
            self.guard.accept()
            self.meter.commit()
            for group in self.optimiser.param_groups:
                group["lr"] = learning_rate_at(self.step, train)
            self.optimiser.step()
            for objective in self.losses:
                objective.after_step(self.model)
        else:
            self.meter.drop()
            self.guard.refuse(
                self.step, step.batch, torch.cat(losses), norm, self.losses.state_dict(), self._loss_settings()
            )
        return norm

    def _backward(self, part: Part, peers: Peers | None, counts: StepCounts) -> Tensor:
        """Add the gradient of this part's share of the global batch's loss; gives the loss of each record, [B]."""
        weight = 1.0 if part.num_records else 0.0
        with autocast(self.device.type, self.config.train.precision):
            terms: list[LossTerms] = self._forward(part.inputs, peers)
        if weight:
            self.meter.add(terms, part.inputs.mode_B)
        loss_B = torch.stack(
            [
                objective.weight * each.sum_B / max(1, num_targets)
                for objective, each, num_targets in zip(self.losses, terms, counts.targets, strict=True)
            ]
        ).sum(0)
        # DDP averages gradients over workers; the loss is already divided by the global counts.
        (weight * loss_B.sum() * num_workers()).backward()
        return loss_B.detach() if weight else loss_B.detach()[:0]

    def _without_exchange(self) -> contextlib.AbstractContextManager[Any]:
        if isinstance(self._forward, DistributedDataParallel):
            return self._forward.no_sync()
        return contextlib.nullcontext()

    def _loss_settings(self) -> dict[str, Any]:
        """What the loss of a kept batch depends on besides its records and the weights."""
        return {
            "model": self.model.config.to_dict(),
            "precision": self.config.train.precision,
            "config": self.config.model_dump(mode="json", include=set(PretrainConfig.model_fields)),
        }

    def _metrics(self, gradient_norm: float) -> dict[str, Any]:
        samples = self.order.samples_at(self.step)
        return {
            "step": self.step,
            "samples": samples,
            "epoch": samples / self.order.num_records,
            **self.fingerprint.read_and_reset(),
            **self.meter.read_and_reset(self.losses.weights),
            "learning_rate": learning_rate_at(self.step - 1, self.config.train),
            "gradient_norm": gradient_norm,
            "num_skipped_steps": self.guard.num_skipped,
            "num_left_out": self.num_left_out,
            **self.clock.read_and_reset(samples),
            **self.throughput.read_and_reset(),
            **({} if self.compile_failure is None else {"machine/compile_failure": self.compile_failure}),
        }
