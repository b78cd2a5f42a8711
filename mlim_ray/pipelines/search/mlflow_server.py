"""An MLflow server that a search is told to, over MLflow's own client; only searches that name one load it."""

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

EXPERIMENT = "tune_mam"
"""what MLflow lists the searches below"""
KEY = "mlim_ray.key"
"""tag by which a search that is resumed finds its runs"""
RUNNING = "RUNNING"
"""status of a run that has not ended"""
_PARENT, _NAME = "mlflow.parentRunId", "mlflow.runName"
_MOST_METRICS, _MOST_PARAMS, _MOST_LETTERS = 1_000, 100, 6_000
"""of one request, and of one parameter"""
# MLflow's own are patient for minutes, and its client tells its makers that it is used.
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Run(NamedTuple):
    """A run as the server has it."""

    id: str
    status: str
    tags: Mapping[str, str]


class Point(NamedTuple):
    """One value of a curve."""

    name: str
    value: float
    samples: int


class MlflowServer:
    """A server that has answered.

    Args:
        url: such as `http://127.0.0.1:5000`; name and password, or a token, are MLflow's own environment variables.

    Raises:
        ValueError: the client is not installed, or the server does not answer.
    """

    def __init__(self, url: str) -> None:
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise ValueError(
                "--mlflow: MLflow's client is not installed here; pip install 'mlim-ray[mlflow]', or leave --mlflow out"
            ) from error
        self.url = url
        self.failure = MlflowException
        """what a call that did not reach the server, or was refused by it, raises"""
        self._client = MlflowClient(url)
        try:
            known = self._client.get_experiment_by_name(EXPERIMENT)
            self._experiment: str = self._client.create_experiment(EXPERIMENT) if known is None else known.experiment_id
        except MlflowException as error:
            raise ValueError(
                f"--mlflow: {url} does not answer as an MLflow server: {str(error).splitlines()[0]}; check the "
                "address and that the server runs, or leave --mlflow out"
            ) from error

    @property
    def page(self) -> str:
        """Where MLflow shows the searches."""
        return f"{self.url.rstrip('/')}/#/experiments/{self._experiment}"

    def run(self, key: str, name: str, parent: str | None, tags: Mapping[str, str], params: Mapping[str, Any]) -> Run:
        """The run with that key, made if there is none yet."""
        found = self._client.search_runs([self._experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
        if found:
            return Run(found[0].info.run_id, found[0].info.status, found[0].data.tags)
        above = {} if parent is None else {_PARENT: parent}
        made = self._client.create_run(self._experiment, tags={KEY: key, _NAME: name, **above, **tags})
        self._log_params(made.info.run_id, params)
        return Run(made.info.run_id, RUNNING, tags)

    def set_status(self, run: str, status: str) -> None:
        """Say that a run is RUNNING, or has ended as FINISHED, FAILED or KILLED."""
        if status == RUNNING:
            self._client.update_run(run, status=status)
        else:
            self._client.set_terminated(run, status)

    def last_samples(self, run: str, name: str) -> int:
        """Where a curve of a run ends; 0 without one."""
        return max((entry.step for entry in self._client.get_metric_history(run, name)), default=0)

    def add(self, run: str, points: Iterable[Point]) -> None:
        """Add points to a run's curves."""
        from mlflow.entities import Metric

        now = int(time.time() * 1_000)
        metrics = [Metric(point.name, point.value, now, point.samples) for point in points]
        for start in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(run, metrics=metrics[start : start + _MOST_METRICS])

    def tag(self, run: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        for name, value in tags.items():
            self._client.set_tag(run, name, value)

    def _log_params(self, run: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        rows = [Param(name, str(value)[:_MOST_LETTERS]) for name, value in params.items()]
        for start in range(0, len(rows), _MOST_PARAMS):
            self._client.log_batch(run, params=rows[start : start + _MOST_PARAMS])
