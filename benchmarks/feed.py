"""How many batches a second reach the model, decoded and masked, and how long does the first one take?

Command:  python -m benchmarks.feed --out feed.json
          WebDataset and Hugging Face datasets take part where they are installed:
          pip install -c constraints.txt -e '.[bench]'
Cost:     3 rounds of 6 ways x 500 batches of 64 pictures of 112 px: about 10 minutes on two idle cores.
Ways:     bare (one process reads, decodes and masks: what a single core gives), stream (ours, Ray Data), resident
          (ours, shared memory), dataloader (PyTorch's over the same shards), webdataset (tar), huggingface (datasets);
          train_worker is our stream as a Ray Train worker sees it. Same pictures, same decoding, same masks.
Ratios:   each way's steady batches/s over the bare loop's of the same round. Every way runs in a process of its own and
          the order rotates from round to round. The first batch is counted from the call that makes the feed, in a
          process that has imported everything and, where it needs it, started Ray; what comes after the first tenth of
          the batches is the steady state. `of processor time` is processor seconds of the bare loop over those of all
          the way's processes: how little is spent beside decoding. A DataLoader's number of processes and prefetched
          batches are the best of a few that are tried first.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.catalogue import write_catalogue
from benchmarks.feed_ways import PACKAGES, WAYS, WITH_RAY, WITH_WORKERS, Job, arrow_folder, tar_folder
from benchmarks.processes import cpu_seconds
from benchmarks.record import DEFAULT_WORK, Figures, machine, median, num_cores, run_cell, write_record
from mlim_ray.command_line.errors import plain_errors
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.sources import resolve_prepare_config

_TRAIN_WORKER = "train_worker"
_TUNED_SHARE = 4
_STREAM_TARGET = 0.85
_RESIDENT_TARGET = 20.0


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, or one measurement of it, from the command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.feed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=20_000, help="records of the source, 224 px (20,000)")
    parser.add_argument("--image-size", type=int, default=112, help="side of the stored pictures (112)")
    parser.add_argument("--batch-size", type=int, default=64, help="records in a batch (64)")
    parser.add_argument("--steps", type=int, default=500, help="batches to feed (500)")
    parser.add_argument("--rounds", type=int, default=3, help="times that everything is measured (3)")
    parser.add_argument("--ways", default=",".join(WAYS), help=f"of {', '.join([*WAYS, _TRAIN_WORKER])}")
    parser.add_argument("--data", help="a prepared set to feed instead of one that is made")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--work", default=DEFAULT_WORK, help="folder for the source, the sets and the peers' files")
    parser.add_argument("--smoke", action="store_true", help="a tiny size, to see that it runs")
    parser.add_argument("--cell", choices=[*WAYS, _TRAIN_WORKER, "make"], help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=num_cores(), help=argparse.SUPPRESS)
    parser.add_argument("--prefetch", type=int, default=2, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.cell:
        print(json.dumps(_cell(given)))
        return 0
    if given.smoke:
        given.records, given.image_size, given.batch_size, given.steps, given.rounds = 400, 32, 16, 40, 1
    ways = _chosen(given)
    started_on = machine()
    prepared = given.data or run_cell("benchmarks.feed", "make", *_flags(given))["prepared"]
    flags = [*_flags(given), "--data", prepared]
    tuned = {way: _tune(way, given, flags) for way in ways if way in WITH_WORKERS}
    rounds = []
    for number in range(given.rounds):
        order = ways[number % len(ways) :] + ways[: number % len(ways)]
        found = {way: run_cell("benchmarks.feed", way, *flags, *tuned.get(way, ())) for way in order}
        rounds.append(found)
        rates = ", ".join(f"{way} {found[way]['steady_per_s']:,.0f}" for way in ways)
        print(f"round {number + 1}: batches/s {rates}", flush=True)
    summary = {way: _summary(way, rounds) for way in ways}
    _print_table(summary)
    record = {name: vars(given)[name] for name in ("records", "image_size", "batch_size", "steps")}
    write_record(given.out, {"machine": started_on, **record, "tuned": tuned, "summary": summary, "rounds": rounds})
    return 0


def _chosen(given: argparse.Namespace) -> list[str]:
    ways = given.ways.split(",")
    for way in ways:
        if way not in (*WAYS, _TRAIN_WORKER):
            raise ValueError(f"--ways {way}: expected some of {', '.join([*WAYS, _TRAIN_WORKER])}")
    if "bare" not in ways:
        raise ValueError("--ways: bare is missing, and every ratio is over it; add it")
    missing = [way for way in ways if way in PACKAGES and importlib.util.find_spec(PACKAGES[way]) is None]
    for way in missing:
        print(f"{way} is left out: the package {PACKAGES[way]} is not installed")
    return [way for way in ways if way not in missing]


def _flags(given: argparse.Namespace) -> list[str]:
    names = ("records", "image_size", "batch_size", "steps", "work")
    return [part for name in names for part in (f"--{name.replace('_', '-')}", str(vars(given)[name]))]


def _tune(way: str, given: argparse.Namespace, flags: list[str]) -> list[str]:
    """The best of a few settings of a DataLoader, in shorter runs."""
    cores = num_cores()
    settings = [(workers, prefetch) for workers in sorted({max(1, cores - 1), cores, cores + 1}) for prefetch in (2, 8)]
    if given.smoke:
        settings = settings[:1]
    short = ["--steps", str(max(given.steps // _TUNED_SHARE, 10))]

    def rate(setting: tuple[int, int]) -> float:
        return float(run_cell("benchmarks.feed", way, *flags, *short, *_loader_flags(setting))["whole_per_s"])

    return _loader_flags(max(settings, key=rate))


def _loader_flags(setting: tuple[int, int]) -> list[str]:
    workers, prefetch = setting
    return ["--workers", str(workers), "--prefetch", str(prefetch)]


def _cell(given: argparse.Namespace) -> Figures:
    if given.cell == "make":
        return {"prepared": make_set(given)}
    job = Job(given.data, given.work, given.batch_size, given.steps, given.workers, given.prefetch)
    if given.cell == "webdataset":
        tar_folder(job)
    if given.cell == "huggingface":
        arrow_folder(job)
    if given.cell == _TRAIN_WORKER:
        return _in_train_worker(job)
    if given.cell not in WITH_RAY:
        return _measure(given.cell, job)
    from mlim_ray.pipelines.cluster import LOCAL, connect

    started = time.perf_counter()
    with connect(LOCAL, dashboard=False):
        return {"ray_start_s": time.perf_counter() - started, **_measure(given.cell, job)}


def _measure(way: str, job: Job) -> Figures:
    """Take the way's batches as fast as they come."""
    used = cpu_seconds(os.getpid())
    started = time.perf_counter()
    batches: Iterator[Any] = iter(WAYS[way](job))
    steady_from = max(1, job.num_steps // 10)
    num_records = 0
    first = steady = started
    for step in range(job.num_steps):
        batch = next(batches)
        num_records += len(batch[0])
        if step == 0:
            first = time.perf_counter()
        if step + 1 == steady_from:
            steady = time.perf_counter()
    stopped = time.perf_counter()
    return {
        "first_batch_s": first - started,
        "steady_per_s": (job.num_steps - steady_from) / (stopped - steady),
        "whole_per_s": job.num_steps / (stopped - started),
        "records": num_records,
        "cpu_s": cpu_seconds(os.getpid()) - used,
        "workers": job.num_workers,
        "prefetch": job.prefetch_factor,
    }


def _in_train_worker(job: Job) -> Figures:
    """Our stream in a Ray Train worker with the CPUs that a run gives it."""
    import ray.train
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    from mlim_ray.pipelines.cluster import LOCAL, connect
    from mlim_ray.pipelines.resources import plan_run

    started = time.perf_counter()
    with connect(LOCAL, dashboard=False) as cluster:
        cpus = plan_run(cluster, 1, streams=True).cpus_per_worker
        trainer = TorchTrainer(
            _train_worker,
            train_loop_config={"job": job},
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": cpus}),
            run_config=ray.train.RunConfig(storage_path=os.path.join(job.work, "train"), name=f"feed-{os.getpid()}"),
        )
        result = trainer.fit()
        return {"start_s": time.perf_counter() - started, **result.return_value}


def _train_worker(settings: dict[str, Any]) -> Figures:
    return _measure("stream", settings["job"])


def make_set(given: argparse.Namespace) -> str:
    """The prepared set that is fed, in the work folder."""
    from mlim_ray.pipelines.cluster import LOCAL, connect
    from mlim_ray.pipelines.prepare import prepare

    source_size = 224 if given.image_size > 64 else given.image_size
    source = write_catalogue(given.work, given.records, source_size)
    out = os.path.join(given.work, f"prepared-{given.image_size}px-{given.records}")
    config = resolve_prepare_config(PrepareConfig(), given.image_size)
    with connect(LOCAL, dashboard=False):
        prepare(source, out, config, overwrite=True)
    return out


def _summary(way: str, rounds: list[dict[str, Figures]]) -> Figures:
    def ratios(name: str, *, inverse: bool = False) -> list[float]:
        pairs = [(each[way][name], each["bare"][name]) for each in rounds]
        return [round(base / value if inverse else value / base, 3) for value, base in pairs]

    steady, whole = ratios("steady_per_s"), ratios("whole_per_s")
    return {
        "steady_ratio": median(steady),
        "steady_ratios": steady,
        "whole_ratio": median(whole),
        "whole_ratios": whole,
        "cpu_ratio": median(ratios("cpu_s", inverse=True)),
        "first_batch_s": median(each[way]["first_batch_s"] for each in rounds),
        "steady_per_s": median(each[way]["steady_per_s"] for each in rounds),
        "over_stream": median(each[way]["steady_per_s"] / each["stream"]["steady_per_s"] for each in rounds)
        if "stream" in rounds[0]
        else None,
    }


def _print_table(summary: dict[str, Figures]) -> None:
    print(f"\n{'way':<13}{'batches/s':>10}{'steady / bare':>24}{'whole run':>11}{'processor':>11}{'first batch':>13}")
    for way, found in summary.items():
        ratios = found["steady_ratios"]
        steady = f"{found['steady_ratio']:.2f} [{min(ratios):.2f}-{max(ratios):.2f}]"
        print(
            f"{way:<13}{found['steady_per_s']:>10,.0f}{steady:>24}{found['whole_ratio']:>11.2f}"
            f"{found['cpu_ratio']:>11.2f}{found['first_batch_s']:>11.2f} s"
        )
    if "stream" in summary:
        print(f"\nstream over the bare loop: {summary['stream']['steady_ratio']:.2f} (goal {_STREAM_TARGET})")
        for way in (way for way in WITH_WORKERS if way in summary):
            print(f"stream over {way}: {1 / summary[way]['over_stream']:.2f} (at least 1 wanted)")
        if "resident" in summary:
            print(
                f"resident over stream: {summary['resident']['over_stream']:.1f} (at least {_RESIDENT_TARGET} wanted)"
            )


if __name__ == "__main__":
    sys.exit(main())
