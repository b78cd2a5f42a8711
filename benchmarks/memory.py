"""Does memory stay the same however many records there are, and does the time for each?

Command:  python -m benchmarks.memory --out memory.json
Cost:     20 k, 200 k and 1 M records of 16 px: about 20 minutes and 6 GB of disk on two cores. A record of an earlier
          run in --out is gone on with: what it holds is not measured again.
Ratios:   the peak of each size over that of the smallest, and the time a record over that of the smallest; at most 1.15
          wanted. The peak is of the whole process tree, driver, Ray and its workers, and of the object store: heaps and
          stacks (pages that processes share count once) and what the store has taken of shared memory, seen every half
          second. Time is that of prepare(), or of as many streamed batches for every size as one epoch of the largest
          has, Ray's start apart; what is started once a run weighs on the smallest size of prepare() alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.catalogue import write_catalogue
from benchmarks.processes import MemoryPeak
from benchmarks.record import DEFAULT_WORK, Figures, machine, run_cell, write_record
from mlim_ray.command_line.errors import plain_errors
from mlim_ray.config import PretrainConfig
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.sources import resolve_prepare_config
from mlim_ray.training.batch import Masking
from mlim_ray.training.stream import ShardReader, stream_order

SIZES = (20_000, 200_000, 1_000_000)
LIMIT = 1.15
_BATCH_SIZE = 64
_MIB = 2**20


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, or one measurement of it, from the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.memory", description=__doc__, formatter_class=_Plain)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of records (20 k, 200 k, 1 M)")
    parser.add_argument("--image-size", type=int, default=16, help="side of the pictures (16)")
    parser.add_argument("--out", help="JSON file for the figures; gone on with where it is there")
    parser.add_argument("--work", default=DEFAULT_WORK, help="folder for the sources and the sets")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--cell", choices=_CELLS, help=argparse.SUPPRESS)
    parser.add_argument("--records", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.cell:
        print(json.dumps(_CELLS[given.cell](given)))
        return 0
    if given.smoke:
        given.sizes = (300, 600)
    started_on = machine()
    cells: dict[str, Figures] = _earlier(given.out, given.image_size)
    for num_records in given.sizes:
        for cell in _CELLS:
            name = f"{cell} {num_records}"
            if name not in cells:
                size = ("--records", num_records, "--image-size", given.image_size, "--work", given.work)
                cells[name] = run_cell("benchmarks.memory", cell, *size, "--sizes", *given.sizes)
                write_record(given.out, {"machine": started_on, "image_size": given.image_size, "cells": cells})
            print(f"{name}: {cells[name]}", flush=True)
    summary = {cell: _ratios(cell, given.sizes, cells) for cell in _CELLS}
    for cell, ratios in summary.items():
        print(f"{cell}: memory {ratios['memory']}, time a record {ratios['time']} (at most {LIMIT} wanted)")
    record = {"image_size": given.image_size, "limit": LIMIT, "summary": summary, "cells": cells}
    write_record(given.out, {"machine": started_on, **record})
    return 0


def _earlier(out: str | None, image_size: int) -> dict[str, Figures]:
    if out is None or not Path(out).is_file():
        return {}
    record = json.loads(Path(out).read_text())
    if record.get("image_size") != image_size:
        raise ValueError(f"--out {out} holds figures of {record.get('image_size')} px; name another file")
    return dict(record["cells"])


def _ratios(cell: str, sizes: Sequence[int], cells: dict[str, Figures]) -> dict[str, list[float]]:
    """Of each size over the smallest."""
    found = [cells[f"{cell} {size}"] for size in sizes]
    return {
        "memory": [round(figures["peak_mib"] / found[0]["peak_mib"], 3) for figures in found],
        "time": [round(figures["ms_a_record"] / found[0]["ms_a_record"], 3) for figures in found],
    }


def _prepare(given: argparse.Namespace) -> Figures:
    """prepare() of a catalogue; the set stays for the feed."""
    from mlim_ray.pipelines.cluster import LOCAL, connect
    from mlim_ray.pipelines.prepare import prepare

    source = write_catalogue(given.work, given.records, given.image_size)
    config = resolve_prepare_config(PrepareConfig(), given.image_size)
    with MemoryPeak() as memory, connect(LOCAL, dashboard=False):
        started = time.perf_counter()
        done = prepare(source, _set_path(given), config, overwrite=True)
        seconds = time.perf_counter() - started
    return _figures(memory, done.accepted, seconds)


def _feed(given: argparse.Namespace) -> Figures:
    """Batches of 64 records, as many as hold the training records of the largest set once."""
    from mlim_ray.pipelines.cluster import LOCAL, connect
    from mlim_ray.pipelines.feed import stream_batches

    prepared = PreparedSet.open(_set_path(given))
    config = PretrainConfig()
    order = stream_order(prepared, config.train.model_copy(update={"batch_size": _BATCH_SIZE}), config.feed)
    masking = Masking(config.masking, 0, (given.image_size // 8) ** 2)
    with MemoryPeak() as memory, connect(LOCAL, dashboard=False):
        started = time.perf_counter()
        reader = ShardReader(prepared, order, masking, range(order.num_lanes))
        num_steps = int(order.epoch_steps * max(given.sizes) / given.records)
        num_seen = sum(len(batch.key_hash_B) for batch in stream_batches(reader, 0, num_steps))
        seconds = time.perf_counter() - started
    return _figures(memory, num_seen, seconds)


_CELLS = {"prepare": _prepare, "feed": _feed}


def _figures(memory: MemoryPeak, num_records: int, seconds: float) -> Figures:
    own, store = memory.peak.own / _MIB, memory.peak.store / _MIB
    return {
        "records": num_records,
        "peak_mib": round(own + store),
        "own_mib": round(own),
        "store_mib": round(store),
        "with_mapped_files_mib": round(memory.peak_total / _MIB),
        "seconds": round(seconds, 2),
        "ms_a_record": round(1_000 * seconds / num_records, 4),
    }


def _set_path(given: argparse.Namespace) -> str:
    return os.path.join(given.work, f"memory-{given.image_size}px-{given.records}")


class _Plain(argparse.RawDescriptionHelpFormatter):
    """The docstring as it is written."""


if __name__ == "__main__":
    sys.exit(main())
