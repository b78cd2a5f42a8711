"""The optimisation, what is logged and kept, and how batches are fed."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlim_ray.config.base import AUTO, Section, ratio


class TrainConfig(Section):
    """Optimiser, schedule, logging and checkpoints (the paper names none of them: our choice throughout)."""

    num_steps: int = Field(2_000, ge=1)
    """optimiser steps"""
    batch_size: int = Field(64, ge=1)
    """records in a global batch, whatever the number of workers"""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """most records of a worker in one forward and backward pass, to fit its memory; the gradients of such parts add up
    to exactly those of the global batch; none: all of a worker's share at once"""
    learning_rate: Annotated[float, Field(gt=0.0)] | Literal["auto"] = AUTO
    """peak learning rate; auto: the model size's own"""
    warmup_ratio: float = ratio(0.05)
    """share of the steps with a rising learning rate; a cosine down to zero follows"""
    weight_decay: float = Field(0.05, ge=0.0)
    """AdamW weight decay, not on biases, norms and embeddings"""
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    """AdamW beta of the mean"""
    beta2: float = Field(0.98, ge=0.0, lt=1.0)
    """AdamW beta of the square"""
    max_gradient_norm: float = Field(1.0, gt=0.0)
    """gradients are clipped to this norm"""
    precision: Literal["auto", "float32", "bfloat16"] = AUTO
    """autocast of the forward pass; auto: bfloat16 on a GPU that has it, else float32"""
    activation_checkpointing: bool = False
    """keep only what enters each encoder layer and compute the rest again on the way back: a third more time for far
    less memory, the same gradients"""
    compile: bool = False
    """run what torch.compile makes of the model's parts: worth its minutes at the start on a GPU, hardly so on a CPU;
    where it does not work, the run goes on without it and says why"""
    peak_flops: Annotated[float, Field(gt=0.0)] | Literal["measured"] = "measured"
    """floating point operations a second of one worker's device that utilisation is measured against; measured: by a
    large matrix product in the precision of the run, when a worker starts"""
    on_non_finite: Literal["stop", "skip"] = "stop"
    """what a step without a finite gradient does: stop the run, or leave the step out and go on; its batch is kept in
    the run folder either way"""
    seed: int = Field(0, ge=0, lt=2**63)
    """seed of the weights, the order of the records and the masks"""
    log_every_steps: int = Field(50, ge=1)
    """a line of metrics.jsonl every so many steps"""
    checkpoint_every_steps: int = Field(500, ge=1)
    """a checkpoint every so many steps, and at the end"""
    num_checkpoints_kept: int = Field(2, ge=1)
    """so many of the last checkpoints are kept; older ones are removed"""
    keep_best: str | None = None
    """loss of the logged lines, such as loss/total, whose lowest checkpoint is kept as well; none: none is"""
    keep_every_steps: int = Field(0, ge=0)
    """checkpoints of every so many steps are kept for good; 0: none are"""
    report_every_s: float = Field(10.0, gt=0.0)
    """seconds between the reports to Ray, which also asks for notices of nodes that are about to be taken away"""
    collective_timeout_s: float = Field(600.0, ge=5.0)
    """a worker that gives no answer for so many seconds is ended, and all start again from the newest checkpoint"""
    stop_within_s: float = Field(30.0, ge=1.0)
    """after SIGTERM or Ctrl-C, the seconds that the workers have to save a checkpoint and end"""
    resize_every_s: float = Field(60.0, gt=0.0)
    """an elastic run looks for nodes that came or went every so many seconds"""

    @model_validator(mode="after")
    def _kept_ones_are_written(self) -> Self:
        if self.keep_every_steps % self.checkpoint_every_steps:
            raise ValueError(
                f"keep_every_steps is {self.keep_every_steps}, expected 0 or a multiple of checkpoint_every_steps, "
                f"which is {self.checkpoint_every_steps}: only checkpoints that are written can be kept"
            )
        return self


class FeedConfig(Section):
    """How prepared records reach the workers."""

    kind: Literal["auto", "stream", "resident"] = AUTO
    """stream: decoded and masked in Ray Data tasks while training; resident: decoded once and kept in shared
    memory; auto: stream for pretrain, resident for a search"""
    num_lanes: int = Field(16, ge=1)
    """canonical lanes that row groups are dealt to; the most workers a run can have"""
    window_groups: int = Field(2, ge=1)
    """row groups of a lane whose rows are mixed together"""
    on_damaged_shard: Literal["stop", "skip"] = "stop"
    """what a row group does that is not what was prepared: stop the run, or skip its records and name them in
    damaged.jsonl"""
    cache_gib: float = Field(32.0, ge=0.0)
    """GiB of a node's disk for shards of a set in S3, so that each is fetched once; 0: none. The default holds a
    million records in any size that a model takes"""
    cache_folder: str | None = None
    """folder that they are kept in; none: the system's for temporary files"""

    @property
    def skips_damaged(self) -> bool:
        """Whether records of damaged row groups are left out."""
        return self.on_damaged_shard == "skip"
