"""Waiting for a task of Ray: a signal is heard while the task still runs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from mlim_ray.pipelines.signals import Stopped, stopping
from mlim_ray.pipelines.waiting import ended_within, result_of, wait_for_one

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


@ray.remote(num_cpus=0)
def ends_with(path: Path) -> str:
    while not path.exists():
        pass
    return path.read_text()


@pytest.mark.parametrize("wait", [lambda task: wait_for_one([task]), result_of])
def test_a_signal_is_heard_while_the_task_runs(tmp_path: Path, wait: Callable[[Any], Any]) -> None:
    end = tmp_path / "end"
    task = ends_with.remote(end)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    with stopping(lambda: "told to stop"), pytest.raises(Stopped, match="^told to stop$"):
        timer.start()
        # The task never ends by itself: what does not hear the signal stays here.
        wait(task)
    assert ended_within([task], 0.0) == []
    end.write_text("done")
    assert result_of(task) == "done" and wait_for_one([task]) == task


def test_one_of_many_is_given_and_errors_are_the_tasks(tmp_path: Path) -> None:
    endless = ends_with.remote(tmp_path / "end")
    (tmp_path / "there").mkdir()
    wrong = ends_with.remote(tmp_path / "there")
    assert wait_for_one([endless, wrong]) == wrong
    with pytest.raises(IsADirectoryError):
        result_of(wrong)
    (tmp_path / "end").write_text("")
    result_of(endless)
