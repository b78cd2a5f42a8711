"""How much of the machine does `prepare` turn into cleaned records?

Command:  python -m benchmarks.prepare --out prepare.json
Cost:     20,000 records of 224 px in 3 rounds: about 6 minutes on two idle cores.
Ratios:   `efficiency` is records/s of prepare() on all cores, over cores x records/s of the bare function clean() in
          one process that has the same raw records in memory. `of parallel` is over as many such processes at once,
          which is what the cores really have to give (two threads of one core are no two cores). Both count all that
          prepare() does besides cleaning: reading, staging, the vocabulary, tokens, shards. Ray is running and has
          prepared the same before; its start and the first, cold run are reported apart. `efficiency of processor
          time` compares processor seconds a record instead of wall-clock: it shows what the pipeline adds and hardly
          moves with what else the machine does, but not where cores stand idle.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Sequence

from benchmarks.catalogue import write_catalogue
from benchmarks.processes import cpu_seconds
from benchmarks.record import DEFAULT_WORK, Figures, machine, median, num_cores, run_cell, spread, write_record
from mlim_ray.command_line.errors import plain_errors
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import CleaningRules, RawRecord, clean
from mlim_ray.data.sources import open_source, resolve_prepare_config

_WARM_RECORDS = 200
_CLEANED_TOGETHER = 256
TARGET = 0.80


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, or one measurement of it, from the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.prepare", description=__doc__, formatter_class=_Plain)
    parser.add_argument("--records", type=int, default=20_000, help="records of the source (20,000)")
    parser.add_argument("--source-size", type=int, default=224, help="side of the source's pictures (224)")
    parser.add_argument("--image-size", type=int, default=224, help="side of the stored pictures (224)")
    parser.add_argument("--rounds", type=int, default=3, help="times that everything is measured (3)")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--work", default=DEFAULT_WORK, help="folder for the source and the sets")
    parser.add_argument("--smoke", action="store_true", help="a tiny size, to see that it runs")
    parser.add_argument("--cell", choices=_CELLS, help=argparse.SUPPRESS)
    parser.add_argument("--source", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.cell:
        print(json.dumps(_CELLS[given.cell](given)))
        return 0
    if given.smoke:
        given.records, given.source_size, given.image_size, given.rounds = 300, 32, 32, 1
    source = write_catalogue(given.work, given.records, given.source_size)
    arguments = ("--source", source, "--image-size", given.image_size, "--work", given.work)
    started_on = machine()
    rounds: list[Figures] = []
    for number in range(given.rounds):
        # The order rotates, so that a drift of the machine's speed favours none.
        names = list(_CELLS)[number % len(_CELLS) :] + list(_CELLS)[: number % len(_CELLS)]
        found: Figures = {name: run_cell("benchmarks.prepare", name, *arguments) for name in names}
        cores, bare = num_cores(), found["bare"]["records_per_s"]
        pipeline = found["pipeline"]["records_per_s"]
        found["efficiency"] = round(pipeline / (cores * bare), 3)
        found["of_parallel"] = round(pipeline / found["parallel"]["records_per_s"], 3)
        found["efficiency_cpu"] = round(found["bare"]["cpu_s"] / found["pipeline"]["cpu_s"], 3)
        rounds.append(found)
        print(
            f"round {number + 1}: bare {bare:,.0f} records/s, "
            f"{cores} at once {found['parallel']['records_per_s']:,.0f}, "
            f"prepare {pipeline:,.0f} (cold {found['pipeline']['cold_records_per_s']:,.0f}): "
            f"efficiency {found['efficiency']:.2f}",
            flush=True,
        )
    efficiency = [each["efficiency"] for each in rounds]
    of_parallel = [each["of_parallel"] for each in rounds]
    of_cpu = [each["efficiency_cpu"] for each in rounds]
    print(
        f"efficiency {spread(efficiency)} (at least {TARGET} wanted), of parallel {spread(of_parallel)}, "
        f"of processor time {spread(of_cpu)}"
    )
    summary = {
        "efficiency": median(efficiency),
        "of_parallel": median(of_parallel),
        "efficiency_cpu": median(of_cpu),
        "target": TARGET,
    }
    record = {"records": given.records, "image_size": given.image_size, **summary, "rounds": rounds}
    write_record(given.out, {"machine": started_on, **record})
    return 0


def _bare(given: argparse.Namespace) -> Figures:
    """clean() alone, in this process."""
    records, rules = _raw_records(given)
    clean(records[:_WARM_RECORDS], rules)
    started = time.perf_counter()
    used = time.process_time()
    accepted = _clean_all(records, rules)
    seconds = time.perf_counter() - started
    _require(accepted, len(records))
    return {"records_per_s": len(records) / seconds, "seconds": seconds, "cpu_s": time.process_time() - used}


def _clean_all(records: list[RawRecord], rules: CleaningRules) -> int:
    """How many are accepted. The results are dropped piece by piece: keeping them all would slow the loop down."""
    starts = range(0, len(records), _CLEANED_TOGETHER)
    return sum(len(clean(records[start : start + _CLEANED_TOGETHER], rules).accepted) for start in starts)


def _parallel(given: argparse.Namespace) -> Figures:
    """clean() in one process a core, each with a copy of the records and an equal share of them."""
    context = multiprocessing.get_context("spawn")
    cores = num_cores()
    barrier, results = context.Barrier(cores + 1), context.Queue()
    workers = [context.Process(target=_clean_share, args=(given, i, cores, barrier, results)) for i in range(cores)]
    for worker in workers:
        worker.start()
    barrier.wait()
    started = time.perf_counter()
    accepted = sum(results.get() for _ in workers)
    seconds = time.perf_counter() - started
    for worker in workers:
        worker.join()
    return {"records_per_s": accepted / seconds, "seconds": seconds}


def _clean_share(given: argparse.Namespace, rank: int, size: int, barrier: object, results: object) -> None:
    records, rules = _raw_records(given)
    share = records[rank::size]
    clean(share[:_WARM_RECORDS], rules)
    barrier.wait()  # type: ignore[attr-defined]
    accepted = _clean_all(share, rules)
    _require(accepted, len(share))
    results.put(accepted)  # type: ignore[attr-defined]


def _pipeline(given: argparse.Namespace) -> Figures:
    """prepare() on all cores, twice: with Ray just started, and once more."""
    from mlim_ray.pipelines.cluster import LOCAL, connect
    from mlim_ray.pipelines.prepare import prepare

    config = _config(given)
    began = time.perf_counter()
    figures: Figures = {}
    with connect(LOCAL, dashboard=False):
        figures["ray_start_s"] = time.perf_counter() - began
        for name in ("cold_", ""):
            out = os.path.join(given.work, f"prepared-{os.getpid()}")
            marks: list[float] = []
            used = cpu_seconds(os.getpid())
            started = time.perf_counter()
            done = prepare(given.source, out, config, on_progress=lambda *_, at=marks: at.append(time.perf_counter()))
            seconds = time.perf_counter() - started
            used = cpu_seconds(os.getpid()) - used
            shutil.rmtree(out)
            _require(done.accepted, done.read)
            figures |= {
                f"{name}records_per_s": done.accepted / seconds,
                f"{name}seconds": seconds,
                f"{name}first_pass_s": marks[-1] - started,
                f"{name}cpu_s": used,
            }
    return figures


_CELLS = {"bare": _bare, "parallel": _parallel, "pipeline": _pipeline}


def _raw_records(given: argparse.Namespace) -> tuple[list[RawRecord], CleaningRules]:
    config = _config(given)
    source = open_source(given.source, config)
    rules = CleaningRules.of(config, source.columns.split is not None)
    return [record for part in source.slices() for records in source.read(part) for record in records], rules


def _config(given: argparse.Namespace) -> PrepareConfig:
    return resolve_prepare_config(PrepareConfig(), given.image_size)


def _require(accepted: int, read: int) -> None:
    if accepted != read:
        raise RuntimeError(f"{accepted} of {read} records were accepted; every record of the benchmark is good")


class _Plain(argparse.RawDescriptionHelpFormatter):
    """The docstring as it is written."""


if __name__ == "__main__":
    sys.exit(main())
