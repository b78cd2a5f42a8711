"""A search as it is watched: read back through the dashboard's own API and by a real Prometheus, while it runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mlim_ray.reporting.gauge_names import GAUGES, OF_A_TRIAL, RECON_LOSS, SAMPLES, SCORE
from tests.event_reader import scalars
from tests.object_store import free_ports

# Alone it takes a minute, beside thirty other processes more than ten.
pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1500)]

ROOT = Path(__file__).resolve().parents[2]
NUM_TRIALS = 3
FLAGS = [
    *("--data", "generated:800", "--trials", str(NUM_TRIALS), "--max-samples", "1500", "--price-per-hour", "2"),
    *("--search.max-concurrent-trials", "1", "--probe.num-records", "64", "--probe.linear-train-records", "200"),
    *("--train.log-every-steps", "3", "--confirm", "false"),
]
BUDGET_S = 1200.0
TICK_S = 0.5
TEMPORARY = "/tmp"
"""Ray's sockets below it have at most 107 characters in their names, and pytest's folders are longer."""

Series = dict[str, dict[tuple[tuple[str, str], ...], float]]
"""Values by exported name and tags."""


def parse_metrics(text: str) -> Series:
    """Our gauges among a node's metrics, with our own tags."""
    series: Series = {}
    for name, tags, value in re.findall(r"^(ray_mlim_\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE):
        own = tuple((tag, of) for tag, of in re.findall(r'(\w+)="([^"]*)"', tags) if tag in ("trial", "mode"))
        series.setdefault(name, {})[tuple(sorted(own))] = float(value)
    return series


@dataclass
class Seen:
    """What was seen of a search from its begin to its end."""

    screen: str = ""
    errors: str = ""
    logs: dict[str, str] = field(default_factory=dict)
    """content of each trial's log by its name, as the Logs view gives it"""
    actors: list[dict[str, Any]] = field(default_factory=list)
    tasks: set[str] = field(default_factory=set)
    titles: set[str] = field(default_factory=set)
    """of processes"""
    jobs: list[dict[str, Any]] = field(default_factory=list)
    gauges: list[Series] = field(default_factory=list)
    """of each look"""
    names: set[str] = field(default_factory=set)
    """of all our gauges that were ever exported"""
    prometheus: list[dict[str, Any]] = field(default_factory=list)
    """what Prometheus answered, once it knew any of our gauges"""


class Dashboard:
    """The dashboard's HTTP API, for somebody who has the token."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def text(self, path: str, **query: str | int) -> str:
        request = urllib.request.Request(f"{self._url}{path}?{urllib.parse.urlencode(query)}", headers=self._headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(answer.read().decode())

    def json(self, path: str, **query: str | int) -> Any:
        return json.loads(self.text(path, **query))

    def look(self, seen: Seen) -> None:
        """Add what there is to see now; the API is slow to wake up, and gone when the search ends."""
        for node in self.json("/nodes", view="summary")["data"]["summary"]:
            node_id = node["raylet"]["nodeId"]
            # Where a process has another title than its command, the rest of the command's words are empty.
            processes = self.json(f"/nodes/{node_id}")["data"]["detail"]["workers"]
            seen.titles |= {process["cmdline"][0] for process in processes if process["cmdline"]}
            files = self.json("/api/v0/logs", node_id=node_id, glob="*-0*.log")["data"]["result"]
            for name in [name for names in files.values() for name in names if re.match(r"trial-\d{5}-", name)]:
                seen.logs[name] = self.text("/api/v0/logs/file", node_id=node_id, filename=name, lines=1_000)
        seen.actors = self.json("/api/v0/actors", detail=1)["data"]["result"]["result"] or seen.actors
        seen.tasks |= {task["name"] for task in self.json("/api/v0/tasks", limit=1_000)["data"]["result"]["result"]}
        seen.jobs = self.json("/api/jobs/")
        for target in [target for entry in self.json("/api/prometheus/sd") for target in entry["targets"]]:
            with urllib.request.urlopen(f"http://{target}/metrics", timeout=30) as answer:
                series = parse_metrics(answer.read().decode())
            if series:
                seen.gauges.append(series)
                seen.names |= series.keys()


class Screen:
    """What a process writes, read as it comes so that its pipes never fill."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.lines: list[str] = []
        self.errors: list[str] = []
        self.told_url = threading.Event()
        self.url_line = ""
        self._threads = [
            threading.Thread(target=self._read, args=(process.stdout, self.lines)),
            threading.Thread(target=self._read, args=(process.stderr, self.errors)),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: Any, into: list[str]) -> None:
        for line in stream:
            into.append(line)
            if line.startswith("Ray dashboard: "):
                self.url_line = line
                self.told_url.set()
        self.told_url.set()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def token(line: str, folder: Path) -> str:
    """What the command prints that the search's own line names, typed where the search was."""
    match = re.search(r"the token that `(.+)` prints", line)
    assert match is not None, line
    done = subprocess.run(match[1], cwd=folder, shell=True, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def prometheus() -> str | None:
    return shutil.which("prometheus")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, prometheus: str | None) -> Iterator[tuple[Seen, Path]]:
    """A search of a few small trials, looked at through its dashboard until it has ended."""
    out = tmp_path_factory.mktemp("watched") / "search"
    temporary = tempfile.mkdtemp(prefix="mlim", dir=TEMPORARY)
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_AUTH_MODE")}
    # Gauges reach the node every second instead of every ten.
    environment |= {"RAY_TMPDIR": temporary, "RAY_metrics_report_interval_ms": "1000"}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "experiments" / "tune_mam.py"), *FLAGS, "--out", str(out)],
        cwd=out.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    screen, scraper = Screen(process), None
    seen = Seen()
    try:
        assert screen.told_url.wait(BUDGET_S) and screen.url_line, screen.errors
        dashboard = Dashboard(screen.url_line.split()[2], token(screen.url_line, out.parent))
        tick, failure = threading.Event(), None
        for _ in range(int(BUDGET_S / TICK_S)):
            if process.poll() is not None:
                break
            if prometheus is not None and scraper is None:
                scraper = Prometheus.start_when_possible(prometheus, Path(temporary), tmp_path_factory)
            try:
                dashboard.look(seen)
                if scraper is not None:
                    scraper.look(seen)
            except (OSError, KeyError, urllib.error.HTTPError) as error:
                failure = error
            tick.wait(TICK_S)
        assert process.wait(BUDGET_S) == 0, (screen.errors, failure)
        screen.join()
        seen.screen, seen.errors = "".join(screen.lines), "".join(screen.errors)
        yield seen, out
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if scraper is not None:
            scraper.end()
        shutil.rmtree(temporary, ignore_errors=True)


class Prometheus:
    """A real Prometheus with the configuration that Ray writes."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = process
        self._port = port

    @classmethod
    def start_when_possible(cls, program: str, temporary: Path, factory: pytest.TempPathFactory) -> Prometheus | None:
        config = temporary / "ray" / "session_latest" / "metrics" / "prometheus" / "prometheus.yml"
        if not config.exists():
            return None
        folder, port = factory.mktemp("prometheus"), free_ports()
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                [
                    *(program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )
        return cls(process, port)

    def look(self, seen: Seen) -> None:
        query = urllib.parse.urlencode({"query": '{__name__=~"ray_mlim_.*", trial!=""}'})
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api/v1/query?{query}", timeout=30) as answer:
            found = json.load(answer)["data"]["result"]
        seen.prometheus = found or seen.prometheus

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()


def test_each_trial_has_a_log_that_tells_its_story(seen: tuple[Seen, Path]) -> None:
    logs = seen[0].logs
    assert sorted(logs)[:3] == ["trial-00000-mam.log", "trial-00001-mam.log", "trial-00002-independent.log"]
    text = logs["trial-00000-mam.log"]
    assert text.startswith("trial: 0\nrole: paper\nseed: 0\npolicy: mam\n")
    assert "mam.image_heavy_ratio: 0.8\n" in text
    assert re.search(r"^\S+ \S+ step 3, samples [\d,]+, MLM [\d.]+, RECON [\d.]+", text, re.MULTILINE)
    rungs = re.findall(r"rung ([\d,]+) samples: probe [\d.]+, mlm [\d.]+, recon [\d.]+$", text, re.MULTILINE)
    assert len(rungs) == 3 and int(rungs[-1].replace(",", "")) >= 1_500
    assert re.search(r"^\S+ \S+ done at [\d,]+ samples$", text.rstrip().splitlines()[-1])


def test_a_trial_is_recognised_though_its_process_is_reused(seen: tuple[Seen, Path]) -> None:
    looked = seen[0]
    titles = {title.removeprefix("ray::") for title in looked.titles if title.startswith("ray::trial-")}
    # The dashboard looks at processes every few seconds, and may miss a short trial.
    assert titles and titles <= {name.removesuffix(".log") for name in looked.logs}
    trials = [actor for actor in looked.actors if actor["class_name"] == "PretrainTrial"]
    assert len(trials) == 1, "one process serves all trials"
    assert re.fullmatch(r"trials in process \d+", trials[0]["repr_name"])
    assert {f"measure trial {number}" for number in range(NUM_TRIALS)} <= looked.tasks, looked.tasks


def test_the_job_says_what_it_is(seen: tuple[Seen, Path]) -> None:
    looked, out = seen
    (job,) = [job for job in looked.jobs if job["metadata"].get("job_name")]
    assert job["metadata"]["job_name"] == out.name
    assert job["metadata"]["run_folder"] == str(out) and job["metadata"]["trials"] == str(NUM_TRIALS)


def test_a_running_trial_has_its_gauges_and_takes_them_along_when_it_ends(seen: tuple[Seen, Path]) -> None:
    looks = seen[0].gauges
    of_first, of_last = (("trial", "0"),), (("trial", str(NUM_TRIALS - 1)),)
    with_first = [look for look in looks if of_first in look.get(SAMPLES.exported, {})]
    assert with_first and any(of_first in look.get(SCORE.exported, {}) for look in with_first)
    modes = {tags for look in with_first for tags in look[RECON_LOSS.exported]}
    assert {(("mode", mode), ("trial", "0")) for mode in ("all", "image_heavy", "text_heavy", "light")} <= modes
    samples = [look[SAMPLES.exported][of_first] for look in with_first]
    assert samples == sorted(samples) and samples[-1] > samples[0] > 0
    after = [look for look in looks if of_last in look.get(SAMPLES.exported, {})]
    assert after and not any(of_first in series for series in after[-1].values())


def test_the_gauges_that_grafana_draws_are_those_that_exist(seen: tuple[Seen, Path]) -> None:
    assert seen[0].names == {gauge.exported for gauge in GAUGES}


def test_prometheus_scrapes_them_with_the_configuration_that_ray_writes(
    seen: tuple[Seen, Path], prometheus: str | None
) -> None:
    if prometheus is None:
        pytest.skip("prometheus is not installed: apt-get install prometheus")
    names = {found["metric"]["__name__"] for found in seen[0].prometheus}
    assert names <= {gauge.exported for gauge in OF_A_TRIAL} and SAMPLES.exported in names


def test_without_a_terminal_each_trial_leaves_a_line_and_the_search_its_spend(seen: tuple[Seen, Path]) -> None:
    lines = seen[0].errors.splitlines()
    ended = [line for line in lines if re.match(r"trial \d+ \(", line)]
    assert [line.split()[1] for line in ended] == [str(number) for number in range(NUM_TRIALS)]
    assert ended[0].startswith("trial 0 (paper, mam): done after ")
    (last,) = [line for line in lines if line.startswith("search: ")]
    assert re.fullmatch(rf"search: {NUM_TRIALS} trials in .*, \d+ done, .* samples/s, spend 0\.\d\d at 2 an hour", last)


def test_each_trial_has_its_curves_for_tensorboard(seen: tuple[Seen, Path]) -> None:
    folder = seen[1] / "tensorboard"
    assert {path.name for path in folder.iterdir()} == {name.removesuffix(".log") for name in seen[0].logs}
    curves = scalars(folder / "trial-00000-mam")
    lines = [json.loads(line) for line in (seen[1] / "trials" / "00000" / "metrics.jsonl").read_text().splitlines()]
    assert curves["loss/mlm"] == [(line["step"], pytest.approx(line["loss/mlm"], rel=1e-5)) for line in lines]
    rungs = {line["step"] for line in lines if line["samples"] >= 1_500}
    assert len(curves["score/probe"]) == 3 and curves["score/probe"][-1][0] in rungs
