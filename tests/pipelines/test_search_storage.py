"""Where a search's studies are kept: a journal or a database, moved, shared, watched, grown and away."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage

from mlim_ray.data import storage
from mlim_ray.pipelines.search.study_store import study_names
from mlim_ray.training.run_folder import RunFolder
from tests.pipelines.search_runs import BUDGET_S, FLAGS, SMALL, SearchRun, tables_in

pytestmark = [pytest.mark.cluster, pytest.mark.long]


def test_a_search_in_a_database_is_the_search_in_a_journal(undisturbed_search: SearchRun, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    optuna.create_study(study_name="somebody else's", storage=url)
    flags = [*FLAGS, "--search.storage", url]
    run = SearchRun(tmp_path, str(tmp_path / "first"), flags)
    try:
        run.start().wait_for(lambda: any(row[4] for row in tables_in(RDBStorage(url), run.out)[0]))
        run.kill()
        # A folder that was moved remembers its study.
        run.out = str(shutil.move(tmp_path / "first", tmp_path / "moved"))
        run.resume().finish()
        assert tables_in(RDBStorage(url), run.out) == undisturbed_search.tables()
        assert not run.journal.exists()

        other = SearchRun(tmp_path, str(tmp_path / "other"), [*SMALL, "--search.storage", url])
        other.start().finish()
        assert study_names(RunFolder(other.out)) != study_names(RunFolder(run.out))
        assert len(tables_in(RDBStorage(url), other.out)[0]) == 1
        assert len(tables_in(RDBStorage(url), run.out)[0]) == 7

        elsewhere = f"sqlite:///{tmp_path / 'empty.db'}"
        line = run.resume("--search.storage", elsewhere, "--trials", "8").refused()
        assert f"{elsewhere} holds no study moved-" in line or f"{elsewhere} holds no study first-" in line
    finally:
        run.end()


def test_a_journal_that_is_gone_is_no_new_search(undisturbed_search: SearchRun, tmp_path: Path) -> None:
    shutil.copytree(undisturbed_search.folder, tmp_path / "copy")
    run = SearchRun(tmp_path / "copy", str(tmp_path / "copy" / "undisturbed"))
    run.journal.unlink()
    line = run.resume("--trials", "8").refused()
    assert line.startswith(f"{run.journal} is gone")


def test_a_finished_search_takes_more_trials_and_no_fewer(undisturbed_search: SearchRun, tmp_path: Path) -> None:
    shutil.copytree(undisturbed_search.folder, tmp_path / "copy")
    run = SearchRun(tmp_path / "copy", str(tmp_path / "copy" / "undisturbed"))
    try:
        run.resume("--trials", "3").finish()
        assert "is finished already" in run.said and len(run.trials()) == 7
        lines = run.num_lines()
        run.resume("--trials", "9").wait_for_lines(lines + 2)
        run.kill()
        # The folder remembers how many were asked for, and what has begun comes to its end whatever is asked for then.
        begun = len(run.trials())
        summary = run.resume("--trials", "3").finish()
        assert [trial["state"] in ("COMPLETE", "PRUNED") for trial in summary["trials"]] == [True] * begun
        summary = run.resume("--trials", "9").finish()
    finally:
        run.end()
    assert len(summary["trials"]) == 9
    assert run.tables()[0][:7] == undisturbed_search.tables()[0]


def test_a_search_on_s3_goes_on_from_the_longer_journal(tmp_path: Path, bucket: str) -> None:
    run = SearchRun(tmp_path, f"{bucket}/runs/search", list(SMALL))
    kept = RunFolder(run.out)
    try:
        run.start("--trials", "2").wait_for_lines(12)
        run.kill()
        here = run.journal.read_bytes()
        # As if the last lines had not been copied yet.
        kept.write_text("study.log", "".join(here.decode().splitlines(keepends=True)[:3]))
        run.resume().finish()
        assert "lines ahead of" in run.said
        copied = Path(tmp_path / "copied.log")
        copied.write_bytes(storage.read_bytes(kept.file("study.log")))
        assert copied.read_bytes().startswith(here[: here.rfind(b"\n") + 1])
        assert [row[1] for row in run.tables()[0]] == ["COMPLETE"] * 2
        assert not run.journal.exists()
    finally:
        run.end()


@pytest.mark.skipif(importlib.util.find_spec("optuna_dashboard") is None, reason="needs the extra `dashboard`")
def test_optuna_dashboard_shows_a_search_while_it_runs(tmp_path: Path) -> None:
    run = SearchRun(tmp_path, str(tmp_path / "watched"))
    dashboard = None
    try:
        run.start().wait_for(lambda: any(trial.intermediate_values for trial in run.trials()))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-c", "from optuna_dashboard._cli import main; main()"]
        dashboard = subprocess.Popen(
            [*command, str(run.journal), "--port", str(port)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        names = study_names(RunFolder(run.out))
        assert names is not None
        studies = {
            study["study_name"]: study for study in answer(f"http://127.0.0.1:{port}/api/studies")["study_summaries"]
        }
        number = studies[names.search]["study_id"]
        shown = answer(f"http://127.0.0.1:{port}/api/studies/{number}?after=0")["trials"]
        assert run.driver.poll() is None, "the search ended before it was looked at"
        assert shown[0]["number"] == 0 and shown[0]["intermediate_values"][0]["step"] == 24
    finally:
        if dashboard is not None:
            dashboard.kill()
            dashboard.wait()
        run.end()


def answer(url: str) -> dict[str, Any]:
    """What a server says that may still be starting."""
    tick = threading.Event()
    for _ in range(int(BUDGET_S * 10)):
        try:
            with urllib.request.urlopen(url, timeout=BUDGET_S) as response:
                found: dict[str, Any] = json.load(response)
                return found
        except urllib.error.URLError:
            tick.wait(0.1)
    raise TimeoutError(url)
