"""Ray Train's trainer as runs and trials have it: how workers are placed, watched, and started again."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from mlim_ray.config import TrainConfig
from mlim_ray.pipelines.ray_files import ray_storage
from mlim_ray.pipelines.resources import WorkerPlan

_MAX_STARTS_WITHOUT_ROOM = 10
"""each waits a minute for nodes that may come back"""
_COLLECTIVE_WAITS = 1.5

Trainer = TypeVar("Trainer", bound=TorchTrainer)


def make_trainer(
    kind: type[Trainer],
    function: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    *,
    config: TrainConfig,
    plan: WorkerPlan,
    name: str,
    folder: str,
    callbacks: list[Any],
) -> Trainer:
    """A trainer that starts its workers again for as long as `callbacks` let it.

    Args:
        kind: Ray Train's trainer, or one derived from it.
        function: what each worker runs, on `settings`.
        settings: its argument.
        config: how long workers may take to answer.
        plan: how many there are, and what each gets.
        name: of the run, for Ray.
        folder: where Ray keeps its files of it.
        callbacks: live in the controller.
    """
    # Read by the controller, which finds a worker that gives no answer.
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(config.collective_timeout_s)
    return kind(
        function,
        train_loop_config=settings,
        torch_config=TorchConfig(
            backend="nccl" if plan.gpus_per_worker else "gloo",
            # Later than the controller, which names the worker that hangs; the others can only say that they waited.
            timeout_s=round(_COLLECTIVE_WAITS * config.collective_timeout_s),
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=plan.workers_for_ray,
            use_gpu=plan.gpus_per_worker > 0,
            resources_per_worker={"CPU": plan.cpus_per_worker, "GPU": plan.gpus_per_worker},
            elastic_resize_monitor_interval_s=config.resize_every_s,
        ),
        run_config=ray.train.RunConfig(
            name=name,
            **ray_storage(folder),
            failure_config=ray.train.FailureConfig(max_failures=-1, controller_failure_limit=_MAX_STARTS_WITHOUT_ROOM),
            callbacks=callbacks,
        ),
    )
