"""Does a search whose driver is killed again and again find what it finds undisturbed?

Command:  python -m benchmarks.interrupted_search SEARCH --out interrupted_search.json
Input:    the folder of a finished search. It is begun anew with the same config, killed with kill -9 at random moments
          that are spread over its length, resumed each time, and left to its end. One that was itself interrupted goes
          on: kills that --out holds are not done again.
Cost:     that of the search, and what each kill loses: the way from the last rungs, and the start of Ray.
Figures:  trials that were whole or stopped before a kill and are not the same at the end, which have to be none; the
          states of all; and for each confirmed arm that both have, its interval beside the undisturbed one and whether
          the two overlap. With several trials at a time the order in which they meet a rung differs from search to
          search, and with it which are stopped and what is proposed next.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import psutil
from optuna.trial import FrozenTrial

from benchmarks.record import DEFAULT_WORK, ROOT, Figures, machine, write_record
from mlim_ray.command_line.errors import plain_errors
from mlim_ray.pipelines.search.study_store import open_study
from mlim_ray.training.run_folder import RunFolder

_END_WITHIN_S = 60.0
_FLAGS = ("--no-dashboard", "--json")

KINDS: tuple[Literal["search", "confirmation"], ...] = ("search", "confirmation")
Ended = dict[str, list[Any]]
"""all that the journal has of each trial that has ended, by study and number; no later driver may touch it"""


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.interrupted_search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("search", help="folder of a finished search")
    parser.add_argument("--kills", type=int, default=10, help="times that the driver is killed (10)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--out", help="JSON file for the figures; gone on with where it is there")
    parser.add_argument("--work", default=DEFAULT_WORK, help="folder for the search that is killed")
    given = parser.parse_args(argv)
    undisturbed = RunFolder(given.search)
    if not undisturbed.is_finished:
        raise ValueError(f"{given.search} is no finished search")
    started_on = machine()
    out = os.path.join(given.work, "interrupted-search", os.path.basename(os.path.abspath(given.search)))
    kills = _earlier(given.out)
    data, config = undisturbed.read_json("environment.json")["data"], undisturbed.file("config.yaml")
    begin = ("--data", data, "--config", config, "--out", out, "--overwrite")

    def start() -> subprocess.Popen[bytes]:
        # One that was killed before it had begun is begun again, as its message would say.
        has_begun = bool(kills) and RunFolder(out).exists
        return _start(("--out", out, "--resume") if has_begun else begin, out)

    length_s = _length_s(given.search)
    driver = start()
    try:
        while len(kills) < given.kills:
            draw = random.Random(given.seed + len(kills))
            wait_s = draw.uniform(0.5, 1.5) * length_s / (given.kills + 1)
            try:
                driver.wait(wait_s)
            except subprocess.TimeoutExpired:
                _kill(driver)
            else:
                raise RuntimeError(
                    f"the search ended ({driver.returncode}) before kill {len(kills) + 1}; see {out}.log"
                )
            before = _ended(out)
            kills.append({"after_s": round(wait_s, 1), "trials_ended": len(before), "ended": before})
            write_record(given.out, {"machine": started_on, "kills": kills})
            print(f"kill {len(kills)}: after {wait_s:.0f} s, {len(before)} trials had ended", flush=True)
            driver = start()
        if driver.wait() != 0:
            raise RuntimeError(f"the search ended with {driver.returncode}; see {out}.log")
    finally:
        if driver.poll() is None:
            _kill(driver)
    record = _compared(given.search, out, kills)
    print(
        f"{len(kills)} kills: {record['changed']} of the trials that had ended were changed; states {record['states']}"
    )
    for arm in record["arms"]:
        print(
            f"{arm['role']}: {arm['interval'][0]:.4f} to {arm['interval'][1]:.4f}, undisturbed "
            f"{arm['undisturbed'][0]:.4f} to {arm['undisturbed'][1]:.4f}, overlap: {arm['overlap']}"
        )
    shown = [{name: kill[name] for name in ("after_s", "trials_ended")} for kill in kills]
    write_record(given.out, {"machine": started_on, **record, "kills": shown})
    return 0


def _start(flags: Sequence[str], out: str) -> subprocess.Popen[bytes]:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.getenv("PYTHONPATH")]))
    command = [sys.executable, str(ROOT / "experiments" / "tune_mam.py"), *flags, "--address", "local", *_FLAGS]
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with open(f"{out}.log", "ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def _kill(driver: subprocess.Popen[bytes]) -> None:
    """kill -9 the driver; gives when what it started has ended too."""
    below = psutil.Process(driver.pid).children(recursive=True)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    _, alive = psutil.wait_procs(below, _END_WITHIN_S)
    # Ray's agents of a node outlive a driver that is killed.
    for process in alive:
        process.kill()
    psutil.wait_procs(alive)


def _trials(search: str) -> dict[str, list[FrozenTrial]]:
    """Of both studies, as far as they have begun."""
    found: dict[str, list[FrozenTrial]] = {}
    for kind in KINDS:
        with contextlib.suppress(ValueError):
            found[kind] = open_study(search, kind).trials
    return found


def _ended(search: str) -> Ended:
    return {
        f"{kind} {trial.number}": [
            trial.state.name,
            trial.values,
            trial.user_attrs,
            str(trial.datetime_start),
            str(trial.datetime_complete),
        ]
        for kind, trials in _trials(search).items()
        for trial in trials
        if trial.state.is_finished()
    }


def _compared(undisturbed: str, search: str, kills: Sequence[Figures]) -> Figures:
    final = _ended(search)
    changed = {name for kill in kills for name, row in kill["ended"].items() if final.get(name) != row}
    ours, theirs = (RunFolder(path).read_json("evaluation.json")["confirmation"] for path in (search, undisturbed))
    arms = []
    for arm in ours["arms"]:
        alike = [other for other in theirs["arms"] if other["role"] == arm["role"]]
        # Which trial stands second may differ; the first of them is the best.
        other = next((other for other in alike if other["trial"] == arm["trial"]), alike[0] if alike else None)
        if other is not None:
            (low, high), (other_low, other_high) = arm["interval"], other["interval"]
            overlap = low <= other_high and other_low <= high
            named = {name: arm[name] for name in ("role", "trial", "interval")}
            arms.append({**named, "undisturbed": other["interval"], "overlap": overlap})
    states = {kind: dict(Counter(trial.state.name for trial in trials)) for kind, trials in _trials(search).items()}
    return {"changed": len(changed), "states": states, "arms": arms}


def _length_s(search: str) -> float:
    """Seconds from the first trial's start to the last one's end."""
    trials = [trial for found in _trials(search).values() for trial in found if trial.datetime_complete]
    starts = [trial.datetime_start.timestamp() for trial in trials if trial.datetime_start]
    return max(trial.datetime_complete.timestamp() for trial in trials if trial.datetime_complete) - min(starts)


def _earlier(out: str | None) -> list[Figures]:
    if out is None or not Path(out).is_file():
        return []
    record = json.loads(Path(out).read_text())
    if "changed" in record:
        raise ValueError(f"--out {out} holds a search that has come to its end; name another file")
    return list(record["kills"])


if __name__ == "__main__":
    sys.exit(main())
