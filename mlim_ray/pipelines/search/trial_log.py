"""A log file for each trial among the logs of the Ray session, which the dashboard's Logs view lists.

Ray's own log files are named after processes, and a process serves many trials. The driver writes what became of a
trial; the process that runs it writes how training goes. On one machine both are one file; else each node has its own.
"""

import logging
import os
import time
from collections.abc import Mapping
from typing import Any

import ray._private.worker

from mlim_ray.pipelines.search.trial_label import TrialLabel

logger = logging.getLogger(__name__)


def logs_folder() -> str:
    """Where this node's processes of the Ray session keep their logs; Ray must have been started or joined."""
    # Ray has no public name for it; its own libraries find it in the same way.
    node = ray._private.worker._global_node
    if node is None:
        raise RuntimeError("there is no Ray session to log to: start or join Ray first")
    return str(node.get_logs_dir_path())


class TrialLog:
    """Appends lines to a trial's log.

    Watching a trial must not end it: where the file cannot be written, that is said once in the process's own log.

    Args:
        label: the trial; its file is `trial-00007-mam.log`, and begins with its role, policy and ratios.
    """

    def __init__(self, label: TrialLabel) -> None:
        self._path = os.path.join(logs_folder(), f"{label.name}.log")
        self._works = True
        if not os.path.exists(self._path):
            self._append("".join(f"{name}: {_text(value)}\n" for name, value in label.facts.items()))

    def write(self, text: str) -> None:
        """Add a line, with the time before it."""
        self._append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def _append(self, text: str) -> None:
        if not self._works:
            return
        try:
            # Opened for each line: the driver and a trial's process write to it in turn.
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            self._works = False
            logger.warning("the log of a trial ends early: %s: %s", self._path, error.strerror)


def figures_text(figures: Mapping[str, Any]) -> str:
    """`score 0.4123, mlm 2.531`: names with values, short."""
    return ", ".join(f"{name} {_text(value)}" for name, value in figures.items())


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
