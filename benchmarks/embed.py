"""How much of the bare model's throughput does `mlim-ray embed` reach?

Command:  python -m benchmarks.embed --out embed.json
Cost:     12,000 records of the small model in 3 rounds: about 15 minutes on two idle cores.
Ratios:   `efficiency` is records/s of embed() over records/s of the bare model: one process a core, each with a copy of
          the model and its share of the records in memory, cleaned and split into pieces, which calls the same function
          that embed() calls in its actors. Both make three embeddings of each record. embed() also reads, stages, sorts
          and writes Parquet; from a raw source it decodes and cleans too. Ray is running and has embedded the same
          before; its start and the first, cold run are reported apart. The warm run still holds the start of its
          actors, which import torch; `efficiency_steady` is of what comes after the first slice. `efficiency of
          processor time` compares processor seconds a record instead of wall-clock: it hardly moves with what else the
          machine does, but does not show where cores stand idle.
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

import numpy as np
import safetensors.torch
import torch

from benchmarks.catalogue import write_catalogue
from benchmarks.processes import cpu_seconds
from benchmarks.record import DEFAULT_WORK, Figures, machine, median, num_cores, run_cell, spread, write_record
from mlim_ray.command_line.errors import plain_errors
from mlim_ray.config.embed import EmbedConfig
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import CleaningRules
from mlim_ray.data.model_rows import read_rows, to_records
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.records import Records, join_records
from mlim_ray.data.sources import open_source, resolve_prepare_config
from mlim_ray.evaluation.embedding import embed as embed_records
from mlim_ray.model import SIZES, MlimConfig, MlimModel
from mlim_ray.training.loaded_run import load_run

TARGET = 0.85
_WARM_RECORDS = 64
_SOURCES = ("prepared", "raw")


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, or one measurement of it, from the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.embed", description=__doc__, formatter_class=_Plain)
    parser.add_argument("--records", type=int, default=12_000, help="records of the source (12,000)")
    parser.add_argument("--size", choices=list(SIZES), default="small", help="of the model (small)")
    parser.add_argument("--source-size", type=int, default=224, help="side of the source's pictures (224)")
    parser.add_argument("--rounds", type=int, default=3, help="times that everything is measured (3)")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--work", default=DEFAULT_WORK, help="folder for the source, the set and the embeddings")
    parser.add_argument("--smoke", action="store_true", help="a tiny size, to see that it runs")
    parser.add_argument("--cell", choices=_CELLS, help=argparse.SUPPRESS)
    parser.add_argument("--source", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.cell:
        print(json.dumps(_CELLS[given.cell](given)))
        return 0
    if given.smoke:
        given.records, given.size, given.source_size, given.rounds = 300, "tiny", 32, 1
    source = write_catalogue(given.work, given.records, given.source_size)
    arguments = ("--source", source, "--size", given.size, "--work", given.work)
    run_cell("benchmarks.embed", "make", *arguments)
    started_on = machine()
    rounds: list[Figures] = []
    measured = [name for name in _CELLS if name != "make"]
    for number in range(given.rounds):
        # The order rotates, so that a drift of the machine's speed favours none.
        names = measured[number % len(measured) :] + measured[: number % len(measured)]
        found: Figures = {name: run_cell("benchmarks.embed", name, *arguments) for name in names}
        bare = found["bare"]
        for name in _SOURCES:
            of = found[name]
            of["efficiency"] = round(of["records_per_s"] / bare["records_per_s"], 3)
            of["efficiency_steady"] = round(of["steady_records_per_s"] / bare["records_per_s"], 3)
            of["efficiency_cpu"] = round(bare["cpu_s"] / of["cpu_s"], 3)
        rounds.append(found)
        print(
            f"round {number + 1}: bare {bare['records_per_s']:,.0f} records/s; "
            + "; ".join(
                f"{name} {found[name]['records_per_s']:,.0f}, efficiency {found[name]['efficiency']:.2f}, "
                f"steady {found[name]['efficiency_steady']:.2f}"
                for name in _SOURCES
            ),
            flush=True,
        )
    summary: Figures = {"target": TARGET}
    for name in _SOURCES:
        for ratio in ("efficiency", "efficiency_steady", "efficiency_cpu"):
            values = [each[name][ratio] for each in rounds]
            summary[f"{name}_{ratio}"] = median(values)
            print(
                f"{name}: {ratio} {spread(values)}" + (f" (at least {TARGET} wanted)" if ratio == "efficiency" else "")
            )
    record = {"records": given.records, "size": given.size, **summary, "rounds": rounds}
    write_record(given.out, {"machine": started_on, **record})
    return 0


def _make(given: argparse.Namespace) -> Figures:
    """A prepared set of the source, and an untrained model of the size with its vocabulary: speed is the same."""
    from mlim_ray.pipelines.cluster import LOCAL, connect
    from mlim_ray.pipelines.prepare import prepare

    config = resolve_prepare_config(PrepareConfig(), SIZES[given.size].image_size)
    with connect(LOCAL, dashboard=False):
        done = prepare(given.source, _set_folder(given), config)
    tokenizer = PreparedSet.open(done.out).tokenizer()
    torch.manual_seed(0)
    shape = MlimConfig.for_size(
        given.size,
        vocab_size=tokenizer.vocab_size,
        mask_token_id=tokenizer.mask_id,
        pad_token_id=tokenizer.pad_id,
        max_tokens=config.max_tokens,
    )
    folder = _run_folder(given)
    os.makedirs(folder, exist_ok=True)
    safetensors.torch.save_file(MlimModel(shape).state_dict(), os.path.join(folder, "model.safetensors"))
    contents = tokenizer.files() | {"config.json": json.dumps(shape.to_dict()).encode()}
    for name, content in contents.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)
    return {"records": done.accepted}


def _bare(given: argparse.Namespace) -> Figures:
    """The model alone, in one process a core."""
    context = multiprocessing.get_context("spawn")
    cores = num_cores()
    barrier, results = context.Barrier(cores + 1), context.Queue()
    workers = [context.Process(target=_embed_share, args=(given, i, cores, barrier, results)) for i in range(cores)]
    for worker in workers:
        worker.start()
    barrier.wait()
    started = time.perf_counter()
    done = [results.get() for _ in workers]
    seconds = time.perf_counter() - started
    for worker in workers:
        worker.join()
    num_records = sum(count for count, _ in done)
    return {"records_per_s": num_records / seconds, "seconds": seconds, "cpu_s": sum(used for _, used in done)}


def _embed_share(given: argparse.Namespace, rank: int, size: int, barrier: object, results: object) -> None:
    torch.set_num_threads(1)
    run, records = load_run(_run_folder(given)), _records(given)
    share = records.take(np.arange(rank, len(records.key_hash_R), size))
    embed_records(run.model, share.take(slice(_WARM_RECORDS)), EmbedConfig())
    barrier.wait()  # type: ignore[attr-defined]
    used = time.process_time()
    embed_records(run.model, share, EmbedConfig())
    results.put((len(share.key_hash_R), time.process_time() - used))  # type: ignore[attr-defined]


def _records(given: argparse.Namespace) -> Records:
    """All records of the prepared set, as the model takes them."""
    run = load_run(_run_folder(given))
    shape = run.model.config
    config = resolve_prepare_config(PrepareConfig(image_encoding="raw"), shape.image_size)
    source = open_source(_set_folder(given), config)
    rules = CleaningRules.of(config, True)
    return join_records(
        [
            to_records(rows.table, run.tokenizer, shape.image_size, shape.max_tokens)
            for number, part in enumerate(source.slices())
            for rows in read_rows(source, part, number, rules)
        ]
    )


def _prepared(given: argparse.Namespace) -> Figures:
    return _pipeline(given, _set_folder(given))


def _raw(given: argparse.Namespace) -> Figures:
    return _pipeline(given, given.source)


def _pipeline(given: argparse.Namespace, source: str) -> Figures:
    """embed() on all cores, twice: with Ray just started, and once more."""
    from mlim_ray.pipelines.cluster import LOCAL, connect
    from mlim_ray.pipelines.embed import embed, embed_job

    run, config = load_run(_run_folder(given)), EmbedConfig()
    began = time.perf_counter()
    figures: Figures = {}
    with connect(LOCAL, dashboard=False) as cluster:
        figures["ray_start_s"] = time.perf_counter() - began
        for name in ("cold_", ""):
            out = os.path.join(given.work, f"embeddings-{os.getpid()}")
            job = embed_job(run, source, out, run.prepare, config)
            marks: list[tuple[float, int]] = []
            used = cpu_seconds(os.getpid())
            started = time.perf_counter()

            def mark(_: str, done: int, total: int, marks: list[tuple[float, int]] = marks) -> None:
                marks.append((time.perf_counter(), done))

            manifest = embed(job, cluster, mark, config)
            ended = time.perf_counter()
            used = cpu_seconds(os.getpid()) - used
            shutil.rmtree(out)
            counts = manifest.counts
            if counts.accepted != counts.read:
                raise RuntimeError(
                    f"{counts.accepted} of {counts.read} accepted; every record of the benchmark is good"
                )
            figures |= {
                f"{name}records_per_s": counts.accepted / (ended - started),
                f"{name}steady_records_per_s": (counts.accepted - marks[0][1]) / (ended - marks[0][0]),
                f"{name}seconds": ended - started,
                f"{name}first_slice_s": marks[0][0] - started,
                f"{name}cpu_s": used,
            }
    return figures


_CELLS = {"make": _make, "bare": _bare, "prepared": _prepared, "raw": _raw}


def _set_folder(given: argparse.Namespace) -> str:
    return f"{given.source}-prepared-{given.size}"


def _run_folder(given: argparse.Namespace) -> str:
    return f"{given.source}-model-{given.size}"


class _Plain(argparse.RawDescriptionHelpFormatter):
    """The docstring as it is written."""


if __name__ == "__main__":
    sys.exit(main())
