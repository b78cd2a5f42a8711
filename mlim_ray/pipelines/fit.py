"""Run Ray Train's workers to the last step, with a line of progress, through failures and requests to stop."""

import threading
import time
from collections.abc import Callable

import ray.train
from ray.train.torch import TorchTrainer

from mlim_ray.config import PretrainConfig
from mlim_ray.data import storage
from mlim_ray.data.storage_error import StorageError
from mlim_ray.pipelines.failures import (
    MAX_FAILURES,
    NoteFailures,
    TooManyFailuresError,
    has_died,
    has_no_room,
    mistake_of,
    note,
    read_restarts,
)
from mlim_ray.pipelines.feed import put_resident
from mlim_ray.pipelines.placement import RememberPlacement
from mlim_ray.pipelines.resources import WorkerPlan, wait_for_resources
from mlim_ray.pipelines.setting import Setting, ray_folder
from mlim_ray.pipelines.signals import Stopped, StopRequest
from mlim_ray.pipelines.stop_flag import StopFlag
from mlim_ray.pipelines.torch_trainer import make_trainer
from mlim_ray.pipelines.train_worker import WorkerJob, train_worker
from mlim_ray.reporting.progress import Stage, say
from mlim_ray.training.metrics import read_metrics
from mlim_ray.training.run_folder import RunFolder

_POLL_EVERY_S = 0.5
_POLL_BUCKET_EVERY_S = 10.0


def fit(
    folder: RunFolder, setting: Setting[PretrainConfig], plan: WorkerPlan, command: str, look: Callable[[], None]
) -> float:
    """Train from the newest checkpoint to the last step; gives the seconds it took.

    Args:
        command: what a person types to go on, for the messages.
        look: called now and then while workers train; must not wait.

    Raises:
        ValueError: a mistake that no further try would mend.
        Stopped: the machine asked to stop, and a checkpoint was written; or the machines do not allow to go on.
        KeyboardInterrupt: a person asked to stop; a checkpoint was written.
    """
    wait_for_resources(plan, streams=setting.streams)
    skips_damaged = setting.config.feed.skips_damaged
    resident = None if setting.streams else put_resident(setting.prepared, skips_damaged=skips_damaged)
    flag = StopFlag()
    job = WorkerJob(setting.config, setting.prepared, folder.anywhere, plan.threads_per_worker, resident, flag.handle)
    started = time.perf_counter()
    num_deaths, newest = 0, -1
    while True:
        placement = RememberPlacement()
        attempt = _Attempt(_trainer(job, folder, plan, placement))
        _watch(attempt, flag, folder, setting, command, look)
        error = attempt.error
        if error is None:
            return time.perf_counter() - started
        _raise_unless_dead(error, folder, command)
        step = max(folder.checkpoints().steps(), default=0)
        num_deaths, newest = (1 if step > newest else num_deaths + 1), step
        if num_deaths > MAX_FAILURES:
            raise Stopped(f"Ray Train's controller died {num_deaths} times{_at(folder, command)}") from error
        placement.free()
        note(folder.path, {"controller": "its process died"})
        say("controller: its process died: workers start again")


def _raise_unless_dead(error: BaseException, folder: RunFolder, command: str) -> None:
    """Return if another controller can go on where one died; else raise what a person is to be told."""
    mistake = mistake_of(error)
    if isinstance(mistake, TooManyFailuresError):
        raise Stopped(f"{mistake}, as {folder.file('restarts.jsonl')} tells{_at(folder, command)}") from error
    if isinstance(mistake, StorageError):
        raise Stopped(f"{mistake}{_at(folder, command)}") from error
    if isinstance(mistake, OSError):
        raise Stopped(f"{mistake.filename or folder.path}: {mistake.strerror}{_at(folder, command)}") from error
    if isinstance(mistake, ValueError):
        raise mistake
    if has_no_room(error):
        raise Stopped(f"the cluster has had no room for the workers for minutes{_at(folder, command)}") from error
    if isinstance(error, ray.train.TrainingFailedError) or not has_died(error):
        raise error


def _at(folder: RunFolder, command: str) -> str:
    return f"; {_kept(folder)}; see to that, then go on with: {command}"


def _trainer(job: WorkerJob, folder: RunFolder, plan: WorkerPlan, placement: RememberPlacement) -> TorchTrainer:
    return make_trainer(
        TorchTrainer,
        train_worker,
        {"job": job},
        config=job.config.train,
        plan=plan,
        name="pretrain",
        folder=ray_folder(folder),
        callbacks=[NoteFailures(folder.anywhere), placement],
    )


class _Attempt:
    """`fit` in a thread of its own: in the main one it would take over Ctrl-C and leave with exit code 0."""

    def __init__(self, trainer: TorchTrainer) -> None:
        self.error: BaseException | None = None
        self._trainer = trainer
        self.thread = threading.Thread(target=self._fit, name="fit", daemon=True)

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:
            self.error = error


def _watch(
    attempt: _Attempt,
    flag: StopFlag,
    folder: RunFolder,
    setting: Setting[PretrainConfig],
    command: str,
    look: Callable[[], None],
) -> None:
    """Show progress from the metrics that the first worker writes, until the attempt ends or somebody asks to stop."""
    order, num_steps = setting.order, setting.config.train.num_steps
    for refused in folder.checkpoints().check():
        say(str(refused))
    done = max(folder.checkpoints().steps(), default=0)
    poll_every_s = _POLL_BUCKET_EVERY_S if storage.is_remote(folder.path) else _POLL_EVERY_S
    num_restarts = len(read_restarts(folder.path))
    give_up_at: float | None = None
    with (
        StopRequest() as request,
        Stage("pretrain", order.samples_at(num_steps), "records", already_done=order.samples_at(done)) as stage,
    ):
        attempt.thread.start()
        while attempt.thread.is_alive():
            attempt.thread.join(_POLL_EVERY_S if give_up_at is not None else poll_every_s)
            lines = read_metrics(folder.path)
            if lines and lines[-1]["step"] > done:
                last = lines[-1]
                stage.advance(
                    last["samples"],
                    data_wait_ratio=last["time/data_wait_ratio"],
                    step=last["step"],
                    loss=last["loss/total"],
                )
            look()
            restarts = read_restarts(folder.path)
            for restart in restarts[num_restarts:]:
                say("; ".join(f"{who}: {why}" for who, why in restart["failed"].items()) + ": workers start again")
            num_restarts = len(restarts)
            if request.signal_name is not None and give_up_at is None:
                within_s = setting.config.train.stop_within_s
                give_up_at = time.monotonic() + within_s
                say(f"{request.signal_name}: saving a checkpoint, for at most {within_s:g} s; another one ends it now")
            if give_up_at is not None:
                flag.hoist()
                if time.monotonic() > give_up_at:
                    break
    if request.signal_name is not None:
        message = f"stopped by {request.signal_name}; {_kept(folder)}; continue with: {command}"
        if request.signal_name == "SIGINT":
            raise KeyboardInterrupt(message)
        raise Stopped(message)


def _kept(folder: RunFolder) -> str:
    steps = folder.checkpoints().steps()
    return f"its newest checkpoint is of step {steps[-1]}" if steps else "no checkpoint was written yet"
