"""Measure a run's checkpoints while it trains.

The driver looks which of the checkpoints that are kept for it have no result yet, and has one task at a time make the
next. The file of results is all that there is to remember: a run that is resumed goes on with what is missing there.
"""

import time
from typing import Any, NamedTuple

import ray
import torch

from mlim_ray.config import PretrainConfig
from mlim_ray.config.evaluate import EvaluateConfig
from mlim_ray.data import storage
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.evaluation.evaluation import Evaluation, evaluate
from mlim_ray.evaluation.overlap import survey
from mlim_ray.evaluation.plain import plain_result
from mlim_ray.evaluation.prepared_bench import make_bench
from mlim_ray.evaluation.scores import scores_of
from mlim_ray.evaluation.tasks import chosen_tasks
from mlim_ray.pipelines.evaluation_results import FOLDER
from mlim_ray.pipelines.measure import Yardstick, make_yardstick
from mlim_ray.pipelines.setting import Setting
from mlim_ray.pipelines.waiting import wait_for_one
from mlim_ray.reporting.progress import say
from mlim_ray.training.build import build_model
from mlim_ray.training.init_from import weights_sha256
from mlim_ray.training.loaded_run import LoadedRun
from mlim_ray.training.run_folder import RunFolder
from mlim_ray.training.untrained import untrained_twin

STEPS = f"{FOLDER}/steps.json"
"""in the run folder: what was found at each step"""
_FAILED = "failed"


class _Running(NamedTuple):
    step: int
    task: Any


class InRunEvaluation:
    """The driver's side; `advance` never waits, `finish` does."""

    def __init__(self, folder: RunFolder, setting: Setting[PretrainConfig]) -> None:
        self._folder = folder
        self._setting = setting
        self._every_steps = setting.config.evaluate.every_steps
        self._found = read_steps(folder)
        self._running: _Running | None = None
        self._yardstick: ray.ObjectRef[Yardstick] | None = None

    def advance(self) -> None:
        """Take what is done, and have the next checkpoint measured if there is one."""
        if not self._every_steps:
            return
        if self._running is not None:
            ready, _ = ray.wait([self._running.task], timeout=0)
            if not ready:
                return
            self._take(self._running)
        waiting = [step for step in self._folder.checkpoints().steps() if self._is_due(step)]
        self._running = self._start(waiting[0]) if waiting else None

    def finish(self) -> list[Evaluation]:
        """What was found at every step, by step, once all is measured."""
        self.advance()
        while self._running is not None:
            wait_for_one([self._running.task])
            self.advance()
        return [self._found[step] for step in sorted(self._found)]

    def _is_due(self, step: int) -> bool:
        # The last step's model is the run's, which is measured with its page.
        is_last = step == self._setting.config.train.num_steps
        return step % self._every_steps == 0 and not is_last and step not in self._found

    def _start(self, step: int) -> _Running:
        config, prepared = self._setting.config, self._setting.prepared
        if self._yardstick is None:
            self._yardstick = make_yardstick.remote(config, prepared, 1)
        # Training has the processors; a GPU that it leaves free would lie idle.
        num_gpus = 1 if ray.available_resources().get("GPU", 0.0) >= 1.0 else 0
        task = _measure_checkpoint.options(num_gpus=num_gpus, name=f"evaluate step {step}").remote(
            step, config, prepared, self._folder.anywhere, self._yardstick
        )
        return _Running(step, task)

    def _take(self, running: _Running) -> None:
        step = running.step
        try:
            found: Evaluation = ray.get(running.task)
        except ray.exceptions.RayError as error:
            # A run of days is not to end because of what only looks at it; the page tells.
            reason = str(getattr(error, "cause", error))
            say(f"step {step}: could not be evaluated: {reason}")
            found = {"step": step, _FAILED: reason}
        else:
            say(f"step {step}: {_in_short(found)}")
        self._found[step] = found
        self._folder.write_json(STEPS, list(self._found.values()))


def read_steps(folder: RunFolder) -> dict[int, Evaluation]:
    """What was found at each step of a run that was measured while it trained, by step.

    A step that could not be measured has a reason under `failed` instead of figures.
    """
    found: list[Evaluation] = folder.read_json(STEPS) if storage.exists(folder.file(STEPS)) else []
    return {evaluation["step"]: evaluation for evaluation in found}


def by_step(found: list[Evaluation]) -> list[dict[str, Any]]:
    """The steps in short, as `evaluation.json` holds them: every score as a number."""
    return [
        {
            "step": evaluation["step"],
            _FAILED: evaluation.get(_FAILED),
            "scores": [
                {"task": score.task, "name": score.name, "value": score.value, "higher": score.higher_is_better}
                for score in scores_of(evaluation)
            ],
        }
        for evaluation in found
    ]


@ray.remote(num_cpus=0)
def _measure_checkpoint(
    step: int, config: PretrainConfig, prepared: PreparedSet, run: str, yardstick: Yardstick
) -> Evaluation:
    torch.set_num_threads(1)
    started = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    weights = RunFolder(run).checkpoints().weights(step)
    model = build_model(config, prepared, device)
    model.load_state_dict(weights)
    model.requires_grad_(False).eval()
    found: Evaluation = {"step": step, **evaluate(model, yardstick.held_out, yardstick.limits, yardstick.baselines)}
    if config.evaluate.tasks:
        loaded = LoadedRun(model, prepared.tokenizer(), step, weights_sha256(weights), prepared.manifest.config)
        overlap = survey(prepared, prepared)
        bench = make_bench(
            loaded, untrained_twin(run, model.config), prepared, overlap, EvaluateConfig(), device, _unwatched
        )
        tasks = {
            task.name: {"asks": task.asks, **plain_result(task.run(bench, task.section(EvaluateConfig())))}
            for task in chosen_tasks(config.evaluate.tasks)
        }
        found["evaluations"] = {"held-out records": {"tasks": tasks}}
    return found | {"seconds": time.monotonic() - started}


def _unwatched(what: str, done: int, total: int) -> None:
    """Nobody looks: the line of progress is that of training."""


def _in_short(found: Evaluation) -> str:
    parts = [f"score {found['probe']['score']:.4f} (lower is better)"]
    if found["linear_probe"] is not None:
        parts.append(f"linear probe {found['linear_probe']['picture_only']:.3f}, picture only")
    return ", ".join(parts)
