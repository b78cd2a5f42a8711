"""How long does a worker wait for data when the feed's CPUs are busy for so much of their time?

Command:  python -m benchmarks.data_wait --out data_wait.json
Cost:     3 rounds of 6 feeds of 400 batches of 64 pictures of 112 px: about 5 minutes on two idle cores.
Ways:     our stream (Ray Data), asked for batches at a share of the rate that it reaches when they are taken as fast as
          they come; what takes them computes nothing, as a GPU worker's process does while its GPU works.
Ratios:   the time that a batch is waited for over all time, after the first tenth of the batches, at each share of the
          full rate of the same round. `benchmarks/plan.py` takes from it how busy CPUs may be.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.feed import make_set
from benchmarks.feed_ways import Job, stream
from benchmarks.plan import DATA_WAIT
from benchmarks.record import DEFAULT_WORK, Figures, machine, median, spread, write_record
from mlim_ray.command_line.errors import plain_errors

_SHARES = (0.6, 0.7, 0.8, 0.9, 1.0)


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.data_wait", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=20_000, help="records of the source (20,000)")
    parser.add_argument("--image-size", type=int, default=112, help="side of the stored pictures (112)")
    parser.add_argument("--batch-size", type=int, default=64, help="records in a batch (64)")
    parser.add_argument("--steps", type=int, default=400, help="batches of each feed (400)")
    parser.add_argument("--rounds", type=int, default=3, help="times that everything is measured (3)")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--work", default=DEFAULT_WORK, help="folder for the source and the set")
    parser.add_argument("--smoke", action="store_true", help="a tiny size, to see that it runs")
    given = parser.parse_args(argv)
    if given.smoke:
        given.records, given.image_size, given.batch_size, given.steps, given.rounds = 400, 32, 16, 40, 1
    from mlim_ray.pipelines.cluster import LOCAL, connect

    started_on = machine()
    job = Job(make_set(given), given.work, given.batch_size, given.steps, 0, 0)
    rounds: list[Figures] = []
    with connect(LOCAL, dashboard=False):
        for number in range(given.rounds):
            full = _take(job, None)["per_s"]
            waits = {str(share): _take(job, share * full)["wait_ratio"] for share in _SHARES}
            rounds.append({"full_per_s": full, "wait_ratio": waits})
            print(f"round {number + 1}: {full:,.0f} batches/s; waits {waits}", flush=True)
    summary = {share: median(each["wait_ratio"][share] for each in rounds) for share in rounds[0]["wait_ratio"]}
    for share in summary:
        print(f"asked for {share} of the full rate: waits {spread([each['wait_ratio'][share] for each in rounds])}")
    print(f"at most {DATA_WAIT} is wanted")
    write_record(
        given.out,
        {
            "machine": started_on,
            **{name: vars(given)[name] for name in ("records", "image_size", "batch_size", "steps")},
            "summary": summary,
            "rounds": rounds,
        },
    )
    return 0


def _take(job: Job, per_s: float | None) -> Figures:
    """Take the batches at that rate, or as they come; the rate that came of it, and what was waited."""
    batches: Iterator[Any] = iter(stream(job))
    steady_from = max(1, job.num_steps // 10)
    waited = 0.0
    began = time.perf_counter()
    for step in range(job.num_steps):
        asked = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - asked
        if step + 1 == steady_from:
            waited, began = 0.0, time.perf_counter()
        if per_s is not None:
            time.sleep(1.0 / per_s)
    seconds = time.perf_counter() - began
    return {"per_s": (job.num_steps - steady_from) / seconds, "wait_ratio": round(waited / seconds, 4)}


if __name__ == "__main__":
    sys.exit(main())
