"""Evaluate the model of a run on the cluster, task by task; what is found stays in the run's folder."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch

from mlim_ray.config.evaluate import EvaluateConfig
from mlim_ray.data import storage
from mlim_ray.data.lease import Lease
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.evaluation.examples import load_examples
from mlim_ray.evaluation.needs import Kinds
from mlim_ray.evaluation.overlap import Survey, survey
from mlim_ray.evaluation.plain import plain_result
from mlim_ray.evaluation.prepared_bench import make_bench
from mlim_ray.evaluation.tasks import Task, chosen_tasks, skipped_tasks
from mlim_ray.model import MlimModel
from mlim_ray.pipelines.board import Board, BoardWriter
from mlim_ray.pipelines.cluster import Cluster, connect
from mlim_ray.pipelines.evaluation_results import FOLDER, Found, read_evaluations, store_evaluation
from mlim_ray.pipelines.evaluation_set import fitting_set
from mlim_ray.pipelines.measure import gpu_options
from mlim_ray.pipelines.setting import is_prepared
from mlim_ray.pipelines.waiting import result_of
from mlim_ray.reporting.progress import Stages, console_width, say
from mlim_ray.reporting.result_lines import result_lines
from mlim_ray.training.loaded_run import LoadedRun
from mlim_ray.training.run_folder import RunFolder
from mlim_ray.training.untrained import learned_from, untrained_twin

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class EvaluateRequest:
    """One evaluation, as asked for."""

    run: str
    """folder of a run or a search, or of a model, local or in S3"""
    on: str | None
    """source or prepared set; None: what the run learned from"""
    config: EvaluateConfig
    address: str
    dashboard: bool


def evaluate_run(request: EvaluateRequest, run: LoadedRun) -> Found:
    """Evaluate, print what is found task by task, and write it into the run's folder; gives it as plain values.

    `evaluation/results.json` holds the results of all sources; a finished run has them in its `evaluation.json` and on
    its page too. Tasks that were not asked for by name are skipped where the set cannot serve them.

    Args:
        request: what was asked for.
        run: the run that it names.

    Raises:
        ValueError: the run or the source cannot be read, or the set cannot serve a task that was asked for.
    """
    tasks = chosen_tasks(request.config.tasks)
    folder = RunFolder(storage.absolute(request.run))
    own = _own_set(folder)
    if request.on is None and own is None:
        raise ValueError(
            f"{request.run} does not tell which set it learned from, or that set is gone; name records with --on SOURCE"
        )
    with Lease(folder.file(FOLDER)), connect(request.address, dashboard=request.dashboard) as cluster:
        if cluster.dashboard_url is not None:
            say(cluster.dashboard_line)
        check_places(request, cluster)
        prepared = own
        if request.on is not None:
            attributes = [name for task in tasks for name in task.needs(task.section(request.config)).attributes]
            prepared = fitting_set(folder.path, run, request.on, request.config.prepare, attributes)
        assert prepared is not None, "checked above"
        prepared.require(*_SPLITS)
        evaluating = _Evaluating(request, folder, prepared, _threads(cluster), 1.0 if cluster.num_gpus >= 1 else 0.0)
        return evaluating.go(tasks, run, own)


@dataclass(frozen=True)
class _SetFacts:
    """What is to be known of a set before tasks run on it."""

    survey: Survey
    train: Kinds
    test: Kinds


@dataclass(frozen=True)
class _Models:
    """What tasks are given of a run."""

    run: LoadedRun
    untrained: MlimModel


@dataclass(frozen=True)
class _Evaluating:
    """One evaluation under way."""

    request: EvaluateRequest
    folder: RunFolder
    prepared: PreparedSet
    num_threads: int
    num_gpus: float

    def go(self, tasks: Sequence[Task], run: LoadedRun, own: PreparedSet | None) -> Found:
        """Run the tasks one after another, each in a process of the cluster; what is found is stored after each."""
        config = self.request.config
        facts: _SetFacts = result_of(_look_at.options(name="survey").remote(self.prepared, own, config))
        skipped = skipped_tasks(tasks, config, facts.train, facts.test)
        found = self._begun(run) | {"overlap": plain_result(facts.survey.overlap), "skipped": skipped}
        _tell("leakage: what do held-out records share with training?", found["overlap"])
        # The same weights for all tasks, whatever the run does meanwhile.
        models = ray.put(_Models(run, untrained_twin(self.folder.path, run.model.config)))
        survey_ref = ray.put(facts.survey)
        for task in tasks:
            if task.name in skipped:
                continue
            started = time.monotonic()
            try:
                result, files = self._run(task, models, survey_ref)
            except ValueError as error:
                # The worker's error arrives wrapped in one of its own kind.
                cause = getattr(error, "cause", error)
                if config.tasks:
                    raise ValueError(f"task {task.name}: {cause}") from error
                skipped[task.name] = str(cause)
                found["tasks"].pop(task.name, None)
                continue
            section = task.section(config).model_dump(mode="json")
            took = {"asks": task.asks, "config": section, "seconds": time.monotonic() - started}
            found["tasks"][task.name] = took | result | self._keep(task, files)
            store_evaluation(self.folder, self._source, found, self.request.run)
            _tell(f"{task.name}: {task.asks}", result)
        store_evaluation(self.folder, self._source, found, self.request.run)
        for name, reason in skipped.items():
            say(f"{name}: skipped, {reason}")
        return found

    def _run(self, task: Task, models: Any, survey_ref: Any) -> tuple[Found, dict[str, bytes]]:
        board = Board()
        running = _evaluate.options(**gpu_options(self.num_gpus), name=f"evaluate {task.name}").remote(
            task.name, models, self.prepared, survey_ref, self.request.config, self.num_threads, board.handle
        )
        with Stages("steps") as stages:
            stages.begin(task.name)
            result: tuple[Found, dict[str, bytes]] = board.wait(running, stages.advance)
        return result

    def _keep(self, task: Task, files: dict[str, bytes]) -> Found:
        """Write what a task drew, in a folder for each set; gives where."""
        if not files:
            return {}
        where = storage.join(FOLDER, task.name, self.prepared.path.rstrip("/").rpartition("/")[2])
        for name, content in files.items():
            storage.write_bytes_atomically(self.folder.file(where, name), content)
        return {"files": sorted(storage.join(where, name) for name in files)}

    def _begun(self, run: LoadedRun) -> Found:
        """What is known of the same model on the same records, and nothing of others."""
        found = {
            "source": self._source,
            "prepared": self.prepared.path,
            "fingerprint": self.prepared.manifest.fingerprint,
            "step": run.step,
            "weights_sha256": run.sha256,
            "records": {split: self.prepared.num_records(split) for split in _SPLITS},
        }
        before = read_evaluations(self.folder).get(self._source, {})
        same = all(before.get(name) == found[name] for name in ("fingerprint", "weights_sha256"))
        return found | {"tasks": before["tasks"] if same else {}}

    @property
    def _source(self) -> str:
        if self.request.on is not None:
            return self.request.on
        return str(self.folder.read_json("environment.json").get("data", self.prepared.path))


def check_places(request: EvaluateRequest, cluster: Cluster) -> None:
    """On more than one node, the run and the source must lie where every node sees them.

    Raises:
        ValueError: a path is local and the cluster has several nodes.
    """
    for name, path in (("RUN", request.run), ("--on", request.on)):
        here = path is not None and not path.startswith("generated:") and not storage.is_remote(path)
        if cluster.num_nodes > 1 and here:
            raise ValueError(
                f"{name}: {path} is local and the cluster has {cluster.num_nodes} nodes that cannot all reach it; give "
                "one in S3, s3://..."
            )


@ray.remote(num_cpus=0)
def _look_at(prepared: PreparedSet, pretrained_on: PreparedSet | None, config: EvaluateConfig) -> _SetFacts:
    train, test = (
        Kinds.of(load_examples(prepared, split, limit))
        for split, limit in (("train", config.num_train), ("test", config.num_test))
    )
    return _SetFacts(survey(prepared, pretrained_on), train, test)


@ray.remote(num_cpus=0)
def _evaluate(
    name: str,
    models: _Models,
    prepared: PreparedSet,
    survey: Survey,
    config: EvaluateConfig,
    num_threads: int,
    board: Any,
) -> tuple[Found, dict[str, bytes]]:
    torch.set_num_threads(num_threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    (task,) = chosen_tasks([name])
    bench = make_bench(models.run, models.untrained, prepared, survey, config, device, BoardWriter(board))
    section = task.section(config)
    return plain_result(task.run(bench, section)), {} if task.draw is None else task.draw(bench, section)


def _own_set(folder: RunFolder) -> PreparedSet | None:
    path = learned_from(folder.path)
    return PreparedSet.open(path) if path is not None and is_prepared(path) else None


def _threads(cluster: Cluster) -> int:
    return max(1, int(cluster.cpus_a_node))


def _tell(heading: str, result: Found) -> None:
    say("")
    for line in result_lines(heading, result, console_width()):
        say(line)
