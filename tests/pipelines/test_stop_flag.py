"""What comes between the steps of Ray Train's workers: reports to Ray, not too often and on all workers alike."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
import ray.train
from ray.train import UserCallback
from ray.train.torch import TorchConfig, TorchTrainer

from mlim_ray.pipelines.stop_flag import TrainControl
from mlim_ray.training.distributed import rank
from mlim_ray.training.stream import resident_batches
from mlim_ray.training.trainer import Trainer
from tests.builders import make_config, make_masking, make_model, make_order, make_records

pytestmark = pytest.mark.cluster

NUM_WORKERS, NUM_MEETINGS, REPORT_EVERY_S, MOST_STEPS = 2, 4, 0.4, 50_000


class Watched(TrainControl):
    """Remembers at which step and when its worker met the others; stops the run after some meetings."""

    def __init__(self) -> None:
        super().__init__(None, REPORT_EVERY_S)
        self.meetings: list[tuple[int, float]] = []

    def wants_stop(self) -> bool:
        return len(self.meetings) == NUM_MEETINGS

    def meet(self, line: dict[str, Any] | None) -> bool:
        assert line is not None
        self.meetings.append((line["step"], time.monotonic()))
        return super().meet(line)


class Reports(UserCallback):
    """Writes down what reaches Ray, a line a report with the entries of each worker."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def after_report(self, run_context: object, metrics: list[dict[str, Any]], checkpoint: object) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(metrics) + "\n")


def work(settings: dict[str, str]) -> None:
    config = make_config(train={"num_steps": MOST_STEPS, "log_every_steps": 1})
    order = make_order(config, 50)
    lanes = order.lanes_of(rank(), NUM_WORKERS)
    batches = resident_batches(make_records(50), order, make_masking(config), lanes, 0, MOST_STEPS)
    control = Watched()
    Trainer(make_model(), config, order).run(batches, MOST_STEPS, [].append, control=control)
    Path(settings["folder"], f"{rank()}.json").write_text(json.dumps(control.meetings))


@pytest.mark.usefixtures("local_ray")
def test_all_workers_report_at_the_same_steps_and_not_more_often_than_asked_for(tmp_path: Path) -> None:
    reports = tmp_path / "reports.jsonl"
    TorchTrainer(
        work,
        train_loop_config={"folder": str(tmp_path)},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=NUM_WORKERS, resources_per_worker={"CPU": 0.5}),
        run_config=ray.train.RunConfig(storage_path=str(tmp_path), callbacks=[Reports(reports)]),
    ).fit()
    first, second = (json.loads((tmp_path / f"{each}.json").read_text()) for each in range(NUM_WORKERS))
    steps = [step for step, _ in first]
    assert len(steps) == NUM_MEETINGS and steps == [step for step, _ in second]
    # The first worker's clock decides, and starts anew after each report.
    assert all(after[1] - before[1] >= REPORT_EVERY_S for before, after in itertools.pairwise(first))
    reported = [json.loads(line) for line in reports.read_text().splitlines()]
    assert [[line["step"] for line in of_workers] for of_workers in reported] == [
        [step] * NUM_WORKERS for step in steps
    ]
    # Ray keeps each report: what differs from worker to worker has no place there.
    assert all(one == other and "loss/total" in one for one, other in reported)
