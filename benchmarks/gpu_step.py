"""How fast does a GPU train the model, how much of its matrix products' peak is that, and what fits its memory?

Command:  python -m benchmarks.gpu_step --out gpu_step.json
          Needs a GPU, and of packages only torch, transformers, pydantic, pyarrow and pillow with what they bring: Ray
          and this package's other dependencies may be absent, and nothing has to be installed. Run it from the
          project's root.
Cost:     about 20 minutes on an H100; --models large@384 --compile on is its core, 5 minutes. Each line is printed, and
          the record written, as soon as it is there: it stays when the rest is stopped or fails.
Ways:     base and large at 224 and 384 px, in bfloat16, as they are and with torch.compile, with batches of twice the
          records each time until the memory does not hold them. Every model runs in a process of its own. The whole
          loop of a run is timed, over records in memory: order, masks, copies to the GPU, losses, update.
Ratios:   `utilisation` is the operations a second that the model needs (mlim_ray/model/flops.py; what activation
          checkpointing computes twice counts once) over the peak that this card reaches in products of large bfloat16
          matrices, measured just before. `input` is the share of the loop's time that a bare step on inputs which lie
          on the card already does not take: what feeding, counting and logging cost. Less than a percent is noise.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.in_memory import Workload
from benchmarks.record import ROOT, Figures, machine, write_record
from mlim_ray.command_line.errors import plain_errors
from mlim_ray.model.flops import step_flops
from mlim_ray.objectives import mlm_terms, recon_terms
from mlim_ray.objectives.inputs import BatchTensors
from mlim_ray.training.batch import Batch
from mlim_ray.training.matmul_peak import matmul_peak
from mlim_ray.training.precision import autocast
from mlim_ray.training.tensors import to_tensors
from mlim_ray.training.throughput import contents_of, peak_memory
from mlim_ray.training.trainer import Trainer

GOAL, _GOAL_MODEL = 0.5, "large@384"
_MODELS = ("base@224", "base@384", "large@224", "large@384")
_SIZES = ("tiny", "small", "base", "large")
_SMOKE_MODEL = "tiny@32"
_MODULE = "benchmarks.gpu_step"
_VOCAB_SIZE = 30_522
_RECORDS_IN_MEMORY = 2_048
_PEAK_SECONDS = 1.0
_COLUMNS = ("model", "compile", "batch", "samples/s", "tokens/s", "utilisation", "memory GiB", "input")


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, or one model of it, from the command line."""
    parser = argparse.ArgumentParser(
        f"python -m {_MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(_MODELS), help=f"SIZE@PIXELS,... ({','.join(_MODELS)})")
    parser.add_argument("--compile", choices=("both", "on", "off"), default="both", help="torch.compile (both)")
    parser.add_argument("--activation-checkpointing", action="store_true", help="less memory for more time")
    parser.add_argument("--smallest-batch", type=int, default=16, help="records in the first batch (16)")
    parser.add_argument("--largest-batch", type=int, default=1_024, help="records in the last batch (1,024)")
    parser.add_argument("--steps", type=int, default=12, help="steps that are timed, after as many to warm up (12)")
    parser.add_argument("--minutes", type=float, default=20.0, help="most that one model may take (20)")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--smoke", action="store_true", help="tiny on the CPU, to see that it runs")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.smoke:
        given.models, given.compile = _SMOKE_MODEL, "off"
        given.smallest_batch, given.largest_batch, given.steps = 4, 8, 2
    elif not torch.cuda.is_available():
        raise ValueError("torch sees no GPU here; expected one and the CUDA build of torch, or --smoke for the CPU")
    models = [_checked(model) for model in given.models.split(",")]
    if given.cell:
        for figures in _sweep(given, given.cell):
            print(json.dumps(figures), flush=True)
        return 0
    record: Figures = {"machine": machine(), "goal": GOAL, "cards": [], "lines": []}
    compiles = ("off", "on") if given.compile == "both" else (given.compile,)
    for number, (model, compiled) in enumerate(itertools.product(models, compiles)):
        for figures in _run_model(given, model, compiled):
            if "card" in figures:
                record["cards"].append(figures)
                _print_head(figures, first=number == 0)
            else:
                record["lines"].append(figures)
                print(_row(figures), flush=True)
            write_record(given.out, record)
    _conclude(record["lines"])
    return 0


def _checked(model: str) -> str:
    size, _, pixels = model.partition("@")
    if size not in _SIZES or not pixels.isdigit():
        raise ValueError(f"--models {model}: expected SIZE@PIXELS, such as {_GOAL_MODEL}, a size being {_SIZES}")
    cell_size = _workload(model, 1).shape.cell_size
    if int(pixels) < cell_size or int(pixels) % cell_size:
        raise ValueError(f"--models {model}: {size} has cells of {cell_size} pixels; expected a multiple of them")
    return model


def _workload(model: str, batch_size: int) -> Workload:
    """Whole batches, so that all steps are alike."""
    size, _, pixels = model.partition("@")
    num_batches = max(2, min(64, _RECORDS_IN_MEMORY // batch_size))
    return Workload(
        size,  # type: ignore[arg-type]
        batch_size,
        image_size=int(pixels),
        vocab_size=_VOCAB_SIZE,
        num_records=num_batches * batch_size,
    )


def _run_model(given: argparse.Namespace, model: str, compiled: str) -> Iterator[Figures]:
    """The lines of one model, as its process writes them; if it fails, the last one says how."""
    numbers = ("smallest_batch", "largest_batch", "steps")
    flags = [part for number in numbers for part in (f"--{number.replace('_', '-')}", str(vars(given)[number]))]
    flags += [f"--{flag.replace('_', '-')}" for flag in ("activation_checkpointing", "smoke") if vars(given)[flag]]
    command = [sys.executable, "-m", _MODULE, "--cell", model, "--compile", compiled, *flags]
    environment = {"PYTORCH_ALLOC_CONF": "expandable_segments:True", **os.environ}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        alarm = threading.Timer(60.0 * given.minutes, process.kill)
        alarm.start()
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
        is_late = not alarm.is_alive()
        alarm.cancel()
        if process.wait() != 0:
            errors.seek(0)
            reason = f"stopped after {given.minutes:g} minutes" if is_late else _last_line(errors.read())
            yield {"model": model, "compile": compiled, "failed": reason}


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else "ended without a word"


def _sweep(given: argparse.Namespace, model: str) -> Iterator[Figures]:
    """The card, and then a line for every batch size, with one trainer for all of them."""
    device = torch.device("cpu") if given.smoke else torch.device("cuda", 0)
    precision = "float32" if given.smoke else "bfloat16"
    peak_flops = matmul_peak(device, getattr(torch, precision), _PEAK_SECONDS)
    yield {**_describe(device), "peak_tflops": peak_flops / 1e12}
    work = _workload(model, given.smallest_batch)
    config = work.config(
        precision=precision,
        compile=given.compile == "on",
        activation_checkpointing=given.activation_checkpointing,
        peak_flops=peak_flops,
        log_every_steps=given.steps,
    )
    started = time.perf_counter()
    trainer = work.trainer(config, device)
    setup = {"model": model, "compile": given.compile, "start_s": time.perf_counter() - started}
    if trainer.compile_failure is not None:
        setup["compile_failure"] = trainer.compile_failure
    batch_size = given.smallest_batch
    while batch_size <= given.largest_batch:
        try:
            figures = _measure(trainer, _workload(model, batch_size), given.steps, peak_flops)
        except torch.OutOfMemoryError:
            yield {**setup, "batch": batch_size, "failed": "out of memory"}
            return
        yield {**setup, "batch": batch_size, **figures}
        batch_size *= 2


def _measure(trainer: Trainer, work: Workload, num_steps: int, peak_flops: float) -> Figures:
    """Speed and memory of the loop at one batch size, and what of it is the step alone."""
    lines: list[dict[str, Any]] = []
    # Twice as long as a kind of step has been seen before: the allocator, the compiler and the clocks settle.
    _run(trainer, work.batches(0, num_steps), num_steps, lines)
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.device)
    flops, num_tokens = 0.0, 0.0

    def noted(batches: Iterable[Batch]) -> Iterator[Batch]:
        nonlocal flops, num_tokens
        for batch in batches:
            contents = contents_of(batch)
            flops += step_flops(work.shape, contents)
            num_tokens += contents.num_tokens + contents.num_cells
            yield batch

    seconds = _run(trainer, noted(work.batches(num_steps, 2 * num_steps)), num_steps, lines)
    memory = peak_memory(trainer.device)
    return {
        "samples_per_s": num_steps * work.batch_size / seconds,
        "tokens_per_s": num_tokens / seconds,
        "mfu_ratio": flops / seconds / peak_flops,
        "memory_gib": memory / 2**30,
        "step_ms": 1e3 * seconds / num_steps,
        "input_ratio": _input_ratio(trainer, work, num_steps, seconds / flops),
    }


def _run(trainer: Trainer, batches: Iterator[Batch], num_steps: int, lines: list[dict[str, Any]]) -> float:
    started = time.perf_counter()
    trainer.run(batches, trainer.step + num_steps, lines.append)
    _wait(trainer.device)
    return time.perf_counter() - started


def _input_ratio(trainer: Trainer, work: Workload, num_steps: int, seconds_per_operation: float) -> float | None:
    """What the loop takes beyond a bare step on inputs that are there; None where the memory does not hold both."""
    try:
        batches = list(work.batches(0, 2))
        inputs = [to_tensors(batch, trainer.device) for batch in batches]
        flops = [step_flops(work.shape, contents_of(batch)) for batch in batches]
        _bare_step(trainer, inputs[0])
        _wait(trainer.device)
        started = time.perf_counter()
        for number in range(num_steps):
            _bare_step(trainer, inputs[number % 2])
        _wait(trainer.device)
    except torch.OutOfMemoryError:
        return None
    bare = (time.perf_counter() - started) / sum(flops[number % 2] for number in range(num_steps))
    return 1.0 - bare / seconds_per_operation


def _bare_step(trainer: Trainer, inputs: BatchTensors) -> None:
    """What the loop computes for a step, with the same model and optimiser."""
    trainer.optimiser.zero_grad(set_to_none=True)
    with autocast(trainer.device.type, trainer.config.train.precision):
        logits_MV, picture_B3HW = trainer.model(*inputs[:6])
    mlm = mlm_terms(logits_MV, inputs.token_ids_BT, inputs.token_hidden_BT, inputs.layout.hidden_token_M)
    recon = recon_terms(picture_B3HW, inputs.pixels_B3HW, inputs.cell_hidden_BN, "whole")
    loss = mlm.sum_B.sum() / mlm.count_B.sum() + 10.0 * recon.sum_B.sum() / recon.count_B.sum()
    loss.backward()
    # The loop reads it too, before it updates.
    float(nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0))
    trainer.optimiser.step()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _describe(device: torch.device) -> Figures:
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
    if device.type != "cuda":
        return {"card": "CPU", **versions}
    card = torch.cuda.get_device_properties(device)
    return {
        "card": card.name,
        "memory_gib": round(card.total_memory / 2**30, 1),
        "multiprocessors": card.multi_processor_count,
        "capability": f"{card.major}.{card.minor}",
        **versions,
    }


def _print_head(card: Figures, *, first: bool) -> None:
    if first:
        print(f"{card['card']}, torch {card['torch']}, CUDA {card['cuda']}: {card['peak_tflops']:,.2f} TFLOP/s\n")
        print(f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}", flush=True)


def _row(line: Figures) -> str:
    compiled = "fell back" if "compile_failure" in line else line["compile"]
    start = f"| {line['model']} | {compiled} | {line.get('batch', '')} |"
    if "failed" in line:
        return f"{start} {line['failed']} | | | | |"
    share = "" if line["input_ratio"] is None else f"{line['input_ratio']:.1%}"
    return (
        f"{start} {line['samples_per_s']:,.0f} | {line['tokens_per_s']:,.0f} | {line['mfu_ratio']:.3f} | "
        f"{line['memory_gib']:.1f} | {share} |"
    )


def _conclude(lines: list[Figures]) -> None:
    for failure in {line["compile_failure"] for line in lines if "compile_failure" in line}:
        print(f"torch.compile did not work here: {failure}")
    measured = [line for line in lines if line["model"] == _GOAL_MODEL and "mfu_ratio" in line]
    if measured:
        best = max(measured, key=lambda line: float(line["mfu_ratio"]))
        print(
            f"{_GOAL_MODEL}: {best['mfu_ratio']:.3f} of the measured peak at best, with {best['batch']} records and "
            f"compile {best['compile']} (goal {GOAL})"
        )


if __name__ == "__main__":
    sys.exit(main())
