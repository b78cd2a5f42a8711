"""What small pictures save: operations and time of a step with them, over a step with pictures in full size.

Run from the project's root: python -m benchmarks.small_pictures [--out RECORD.json]
Figures: floating point operations of a step (mlim_ray.model.flops), and processor time of one thread: the forward and
the backward pass, MAM's masks, 64 records with titles as long as fashion's; and that of shrinking the batch's pictures.
Full and small steps in turns, median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch

from benchmarks.in_memory import Workload
from benchmarks.record import Figures, machine, run_cell, write_record
from mlim_ray.config import ModelSize, ResolutionConfig
from mlim_ray.data.shrinking import shrink
from mlim_ray.model.flops import step_flops
from mlim_ray.objectives import Losses
from mlim_ray.training.batch import Batch, make_batch
from mlim_ray.training.build import run_masking
from mlim_ray.training.tensors import to_tensors
from mlim_ray.training.throughput import contents_of

_SIZES: tuple[ModelSize, ...] = ("tiny", "small")
_BATCH_SIZE = 64
_CPU = torch.device("cpu")


def main() -> None:
    """Measure, print the table, and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage="%(prog)s [options]"
    )
    parser.add_argument("--start-ratio", type=float, default=0.57, help="side of the small pictures")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--out", help="file for the record")
    parser.add_argument("--cell", choices=_SIZES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cell is not None:
        print(json.dumps(_measure(given.cell, given.start_ratio, given.rounds)))
        return
    # numpy's library reads how many threads it has when it is loaded.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    asked = ("--start-ratio", given.start_ratio, "--rounds", given.rounds)
    found = {size: run_cell("benchmarks.small_pictures", size, *asked) for size in _SIZES}
    print("| size | px | operations | time | shrinking, ms of |")
    print("|---|---|---|---|---|")
    for size, each in found.items():
        print(
            f"| {size} | {each['px'][1]} of {each['px'][0]} | {each['gflop_ratio']:.2f} | {each['ms_ratio']:.2f} "
            f"| {each['shrinking_ms']:.1f} of {each['ms'][1]:.0f} |"
        )
    write_record(given.out, {"machine": machine(), "sizes": found})


def _measure(size: ModelSize, start_ratio: float, rounds: int) -> Figures:
    torch.set_num_threads(1)
    work = Workload(size, _BATCH_SIZE, num_records=_BATCH_SIZE)
    config = work.config().model_copy(update={"resolution": ResolutionConfig(start_ratio=start_ratio)})
    masking = run_masking(config, work.shape)
    batches = [make_batch(work.records, 0, each) for each in (masking, masking.at(0))]
    losses = Losses(work.model(), config)
    sides = [batch.pixels_BHW3.shape[1] for batch in batches]
    ms: list[list[float]] = [[], [], []]
    ways: list[Callable[[], object]] = [partial(_pass, losses, batch) for batch in batches]
    ways.append(partial(shrink, work.records.pixels_RHW3, sides[1]))
    for number in range(rounds + 1):
        for way, times in zip(ways, ms, strict=True):
            started = time.process_time()
            way()
            # The first round makes buffers and plans.
            if number:
                times.append(1e3 * (time.process_time() - started))
    gflop = [step_flops(work.shape, contents_of(batch)) / 1e9 for batch in batches]
    whole, small, shrinking = map(median, ms)
    return {
        "px": sides,
        "cells": [batch.cell_hidden_BN.shape[1] for batch in batches],
        "gflop": [round(each, 2) for each in gflop],
        "gflop_ratio": round(gflop[1] / gflop[0], 3),
        "ms": [round(whole, 1), round(small, 1)],
        "ms_ratio": round(median(b / a for a, b in zip(*ms[:2], strict=True)), 3),
        "ms_range": [[round(min(times), 1), round(max(times), 1)] for times in ms[:2]],
        "shrinking_ms": round(shrinking, 2),
    }


def _pass(losses: Losses, batch: Batch) -> None:
    counts = losses.num_targets(batch.cell_hidden_BN, batch.token_hidden_BT)
    terms = losses(to_tensors(batch, _CPU))
    torch.stack([each.sum_B.sum() / count for each, count in zip(terms, counts, strict=True)]).sum().backward()
    losses.zero_grad(set_to_none=True)


if __name__ == "__main__":
    main()
