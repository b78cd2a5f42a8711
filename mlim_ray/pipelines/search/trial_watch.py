"""What a running trial shows of itself: process title, gauges, TensorBoard's curves, and lines of its log."""

from collections.abc import Mapping
from typing import Any

from ray._raylet import setproctitle  # type: ignore[attr-defined]

from mlim_ray.pipelines.search.gauges import TrialGauges
from mlim_ray.pipelines.search.trial_label import TrialLabel
from mlim_ray.pipelines.search.trial_log import TrialLog, figures_text
from mlim_ray.reporting.event_files import EventFile

_IN_THE_LOG = {
    "step": "step",
    "samples": "samples",
    "loss/mlm": "MLM",
    "loss/recon": "RECON",
    "time/samples_per_s": "samples/s",
}
_DATA_WAIT = "data wait"
_SCORES = "score/"


class TrialWatch:
    """Shows one trial until `close`; made in the process that runs it.

    Args:
        search: folder of the search.
        label: the trial.
        start_step: step that it goes on from.
    """

    def __init__(self, search: str, label: TrialLabel, start_step: int) -> None:
        self._title = f"ray::{label.name}"
        self._gauges = TrialGauges(label.tag)
        self._events = EventFile(search, start_step, label.name)
        self._log = TrialLog(label)
        if start_step > 0:
            self._log.write(f"goes on from step {start_step:,}")

    def name_process(self) -> None:
        """Put the trial's name on this process, as the dashboard and `ps` show it.

        Ray puts its own back at the end of each call of an actor, so that it has to be done in each of them.
        """
        setproctitle(self._title)

    def write(self, line: Mapping[str, Any]) -> None:
        """Take a line of `metrics.jsonl`."""
        self._gauges.write(line)
        self._events.write(line["step"], line)
        shown = {name: line[entry] for entry, name in _IN_THE_LOG.items() if entry in line}
        self._log.write(figures_text(shown | {_DATA_WAIT: f"{line['time/data_wait_ratio']:.1%}"}))

    def scored(self, step: int, score: float, measures: Mapping[str, float]) -> None:
        """Take what was measured at a rung; the driver puts it into the log."""
        self._gauges.score(score)
        self._events.write(step, {f"{_SCORES}{name}": value for name, value in measures.items()})
        self._events.flush()

    def close(self) -> None:
        """The trial ended, or leaves this process."""
        self._gauges.close()
        self._events.close()
