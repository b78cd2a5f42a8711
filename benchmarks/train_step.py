"""What does a training step cost beside its matrix products, and what does the loop around it?

Command:  python -m benchmarks.train_step --out train_step.json
Cost:     about 15 minutes on two idle cores; --only vilt,loop and --rounds make it less.
Parts:    vilt         a step of our model against one of the same size of transformers' ViLT with its MLM head and our
                       decoder, on the same batches; and against ours with one gain at a time taken away. With short
                       titles and with descriptions, whose lengths differ more.
          loop         Trainer.run against a bare PyTorch loop, over the same model and batches in memory.
          ray          Trainer.run in a Ray Train worker, with the control of a real run, against a plain process.
          utilisation  operations that the step needs (mlim_ray/model/flops.py) over what the same threads make of large
                       matrix products, measured before and after it.
          scaling      two workers of one thread, each with a core of its own, against one: steps a second. Two that do
                       not talk to each other are what the cores have to give.
Ratios:   always of what ran next to each other, in rounds whose order rotates; the median and the range are shown.
          Where ways share a process they alternate step by step. `of processor time` is the same of processor seconds:
          it hardly moves with what else the machine does (with one thread; waiting threads count as working).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.distributed

from benchmarks.in_memory import TEXTS, Workload
from benchmarks.record import Figures, machine, median, num_cores, run_cell, spread, write_record
from benchmarks.step_ways import WAYS, bare_loop, make_way
from mlim_ray.command_line.errors import plain_errors
from mlim_ray.model.flops import step_flops
from mlim_ray.training.matmul_peak import best_rate
from mlim_ray.training.throughput import contents_of

GOALS = {"vilt": 1.3, "loop": 0.97, "ray": 0.95, "utilisation": 0.6}
_MODULE = "benchmarks.train_step"
_VILT, _OURS = "vilt", "ours"
_WARM_STEPS = 2
_CHUNK_STEPS = 10
_PEAK_SIZE, _PEAK_SECONDS = 1_024, 0.5

Timed = tuple[float, float]


@plain_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, or one measurement of it, from the command line."""
    parser = argparse.ArgumentParser(
        f"python -m {_MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(_PARTS), help=f"of {', '.join(_PARTS)}")
    parser.add_argument("--rounds", type=int, default=9, help="times that everything is measured (9)")
    parser.add_argument("--threads", type=int, default=num_cores(), help="of a process (all cores)")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--smoke", action="store_true", help="a tiny size, to see that it runs")
    parser.add_argument("--cell", choices=_CELLS, help=argparse.SUPPRESS)
    parser.add_argument("--size", default="small", help=argparse.SUPPRESS)
    parser.add_argument("--layers", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, default=32, help=argparse.SUPPRESS)
    parser.add_argument("--texts", choices=TEXTS, default="titles", help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--meeting", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.cell:
        torch.set_num_threads(given.threads)
        print(json.dumps(_CELLS[given.cell](given)))
        return 0
    parts = given.only.split(",")
    for part in parts:
        if part not in _PARTS:
            raise ValueError(f"--only {part}: expected some of {', '.join(_PARTS)}")
    if given.smoke:
        given.rounds, given.threads = 1, 1
    started_on = machine()
    found = {part: _PARTS[part](given) for part in parts}
    record = {"machine": started_on, "rounds": given.rounds, "threads": given.threads, "goals": GOALS}
    write_record(given.out, {**record, "parts": found})
    return 0


def _vilt(given: argparse.Namespace) -> Figures:
    found = {}
    for texts in TEXTS:
        cell = found[texts] = _run(given, "ways", layers=4, rounds=given.rounds, texts=texts)
        print(f"\n{texts}: step of width {cell['width']}, {cell['layers']} layers, {cell['batch_size']} records")
        print(f"{'way':<24}{'ms':>8}{'time over ours':>24}{'of processor time':>24}")
        for way, times in cell["ways"].items():
            print(f"{way:<24}{times['ms']:>8.1f}{spread(times['ratios']):>24}{spread(times['cpu_ratios']):>24}")
        print(f"ViLT's step takes {cell['ways'][_VILT]['ratio']:.2f} times ours (at least {GOALS['vilt']} wanted)")
    return found


def _loop(given: argparse.Namespace) -> Figures:
    found = _by_size(given, "loop", ("tiny", 3, 64), ("small", 4, 32))
    for size, each in found.items():
        print(
            f"loop, {size}: {spread(each['ratios'])} of a bare loop's rate, {spread(each['cpu_ratios'])} of processor "
            f"time (at least {GOALS['loop']} wanted)"
        )
    return found


def _ray(given: argparse.Namespace) -> Figures:
    rounds = []
    for number in range(min(given.rounds, 3)):
        order = ["plain", "train_worker"] if number % 2 == 0 else ["train_worker", "plain"]
        rounds.append({name: _run(given, name, size="tiny", layers=3, batch_size=64) for name in order})
    ratios = [each["train_worker"]["steps_per_s"] / each["plain"]["steps_per_s"] for each in rounds]
    cpu_ratios = [each["plain"]["cpu_s"] / each["train_worker"]["cpu_s"] for each in rounds]
    print(
        f"ray: {spread(ratios)} of a plain process's rate, {spread(cpu_ratios)} of processor time "
        f"(at least {GOALS['ray']} wanted)"
    )
    return {"ratio": median(ratios), "ratios": ratios, "cpu_ratio": median(cpu_ratios), "rounds": rounds}


def _utilisation(given: argparse.Namespace) -> Figures:
    found = _by_size(given, "utilisation", ("tiny", 3, 64), ("small", 6, 32), ("base", 12, 8))
    for size, each in found.items():
        print(
            f"utilisation, {size}: {spread(each['ratios'])} of {each['peak_gflops']:,.0f} GFLOP/s "
            f"(goal {GOALS['utilisation']})"
        )
    return found


def _scaling(given: argparse.Namespace) -> Figures:
    cores = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        print("scaling: left out, for it takes two cores that processes can be bound to")
        return {}
    rounds = []
    for number in range(min(given.rounds, 5)):
        names = ["one", "apart", "together"]
        found = {name: _steps_per_s(given, name, cores) for name in names[number % 3 :] + names[: number % 3]}
        rounds.append(found)
    efficiencies = [found["together"] / found["one"] for found in rounds]
    ceilings = [found["apart"] / found["one"] for found in rounds]
    print(
        f"scaling: two workers make {spread(efficiencies)} of one's steps a second, each with a batch as large as its; "
        f"two that do not talk {spread(ceilings)}"
    )
    return {"efficiency": median(efficiencies), "of_apart": median(ceilings), "rounds": rounds}


_PARTS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "vilt": _vilt,
    "loop": _loop,
    "ray": _ray,
    "utilisation": _utilisation,
    "scaling": _scaling,
}


def _by_size(given: argparse.Namespace, cell: str, *sizes: tuple[str, int, int]) -> dict[str, Figures]:
    """The cell for each (size, layers, records of a batch); a smoke test takes the first alone."""
    return {
        size: _run(given, cell, size=size, layers=layers, batch_size=batch_size, rounds=given.rounds)
        for size, layers, batch_size in (sizes[:1] if given.smoke else sizes)
    }


def _run(given: argparse.Namespace, cell: str, **flags: object) -> Figures:
    """A cell in a process of its own; a smoke test's is tiny whatever was asked for."""
    given_flags: dict[str, object] = {"threads": given.threads, **flags}
    if given.smoke:
        given_flags |= {"size": "tiny", "layers": 1, "batch_size": 4}
    arguments = [part for name, value in given_flags.items() for part in (f"--{name.replace('_', '-')}", value)]
    return run_cell(_MODULE, cell, *arguments, *(["--smoke"] if given.smoke else []))


def _steps_per_s(given: argparse.Namespace, name: str, cores: list[int]) -> float:
    """Steps a second of each of the processes: one on one core, or two that share their gradients or do not."""
    used = cores[:1] if name == "one" else cores
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(used)) as pool:
        meeting = {"meeting": f"{folder}/meeting"} if name == "together" else {}
        cells = [pool.submit(_run, given, "pinned", core=core, **meeting, threads=1, layers=4) for core in used]
        return min(float(cell.result()["steps_per_s"]) for cell in cells)


def _work(given: argparse.Namespace) -> Workload:
    return Workload(
        given.size,
        given.batch_size,
        num_layers=given.layers,
        num_records=4 * given.batch_size,
        texts=TEXTS[given.texts],
    )


def _time_ways(given: argparse.Namespace) -> Figures:
    work = _work(given)
    batches = list(work.batches(0, 4))
    ways = {name: make_way(name, work) for name in WAYS}
    inputs = {name: [way.prepare(batch) for batch in batches] for name, way in ways.items()}
    for number in range(_WARM_STEPS):
        for name, way in ways.items():
            way.step(inputs[name][number])

    def stepping(name: str) -> Callable[[int], None]:
        return lambda number: ways[name].step(inputs[name][number % len(batches)])

    times = _in_turns({name: stepping(name) for name in ways}, given.rounds)
    shape = work.shape
    return {
        "width": shape.hidden_size,
        "layers": shape.num_hidden_layers,
        "batch_size": given.batch_size,
        "ways": {name: _over(times[name], times[_OURS]) for name in ways},
    }


def _time_loop(given: argparse.Namespace) -> Figures:
    work = _work(given)
    steps = 2 if given.smoke else _CHUNK_STEPS
    batches = list(work.batches(0, steps))
    trainer = work.trainer(work.config(log_every_steps=steps))
    bare = bare_loop(work, work.model())
    lines: list[dict[str, Any]] = []

    def ours(_: int) -> None:
        trainer.run(iter(batches), trainer.step + steps, lines.append)

    ways: dict[str, Callable[[int], None]] = {"bare": lambda _: bare(batches), _OURS: ours}
    for way in ways.values():
        way(0)
    times = _in_turns(ways, given.rounds)
    return _over(times["bare"], times[_OURS])


def _time_utilisation(given: argparse.Namespace) -> Figures:
    work = _work(given)
    batches = list(work.batches(0, 4))
    way = make_way(_OURS, work)
    inputs = [way.prepare(batch) for batch in batches]
    flops = [step_flops(work.shape, contents_of(batch)) for batch in batches]
    way.step(inputs[0])
    ratios, peaks = [], [_peak()]
    for _ in range(given.rounds):
        started = time.perf_counter()
        for each in inputs:
            way.step(each)
        rate = sum(flops) / (time.perf_counter() - started)
        peaks.append(_peak())
        ratios.append(rate / max(peaks[-2:]))
    return {"ratio": median(ratios), "ratios": ratios, "peak_gflops": median(peaks) / 1e9}


def _time_steps(given: argparse.Namespace) -> Figures:
    """Our loop in this process, its start apart."""
    return _steady(given, None)


def _time_train_worker(given: argparse.Namespace) -> Figures:
    """Our loop in the one worker of a Ray Train run."""
    import ray.train
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    from mlim_ray.pipelines.cluster import LOCAL, connect
    from mlim_ray.pipelines.stop_flag import StopFlag

    with connect(LOCAL, dashboard=False), tempfile.TemporaryDirectory() as folder:
        trainer = TorchTrainer(
            _train_worker,
            train_loop_config={"given": given, "flag": StopFlag().handle},
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
            run_config=ray.train.RunConfig(storage_path=folder, name="step"),
        )
        figures: Figures = trainer.fit().return_value
        return figures


def _train_worker(settings: dict[str, Any]) -> Figures:
    from mlim_ray.pipelines.stop_flag import TrainControl

    # Ray sets one thread a worker whatever it may use.
    torch.set_num_threads(settings["given"].threads)
    return _steady(settings["given"], TrainControl(settings["flag"], report_every_s=1.0))


def _steady(given: argparse.Namespace, control: Any) -> Figures:
    work = _work(given)
    steps = 4 if given.smoke else 200
    trainer = work.trainer(work.config(log_every_steps=10))
    lines: list[dict[str, Any]] = []
    batches = list(work.batches(0, steps + _CHUNK_STEPS))
    trainer.run(iter(batches[:_CHUNK_STEPS]), _CHUNK_STEPS, lines.append, control=control)
    started, used = time.perf_counter(), time.process_time()
    trainer.run(iter(batches[_CHUNK_STEPS:]), _CHUNK_STEPS + steps, lines.append, control=control)
    return {"steps_per_s": steps / (time.perf_counter() - started), "cpu_s": time.process_time() - used}


def _time_pinned(given: argparse.Namespace) -> Figures:
    """Our loop on one core, alone or with a second process on the other."""
    os.sched_setaffinity(0, {given.core})
    if given.meeting:
        rank = sorted(os.sched_getaffinity(os.getppid())).index(given.core)
        torch.distributed.init_process_group("gloo", init_method=f"file://{given.meeting}", rank=rank, world_size=2)
    work = _work(given)
    steps = 2 if given.smoke else 12
    trainer = work.trainer(work.config(log_every_steps=steps))
    batches = list(work.batches(0, 4))
    lines: list[dict[str, Any]] = []
    trainer.run(iter(batches[:_WARM_STEPS]), _WARM_STEPS, lines.append)
    started = time.perf_counter()
    trainer.run((batches[number % 4] for number in range(steps)), _WARM_STEPS + steps, lines.append)
    seconds = time.perf_counter() - started
    if given.meeting:
        torch.distributed.destroy_process_group()
    return {"steps_per_s": steps / seconds}


_CELLS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "ways": _time_ways,
    "loop": _time_loop,
    "plain": _time_steps,
    "train_worker": _time_train_worker,
    "utilisation": _time_utilisation,
    "pinned": _time_pinned,
}


def _in_turns(ways: dict[str, Callable[[int], None]], rounds: int) -> dict[str, list[Timed]]:
    """Seconds and processor seconds of every way in every round; who begins rotates."""
    times: dict[str, list[Timed]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            started, used = time.perf_counter(), time.process_time()
            ways[name](number)
            times[name].append((time.perf_counter() - started, time.process_time() - used))
    return times


def _over(times: list[Timed], base: list[Timed]) -> Figures:
    """What the way took over what the base took in the same round."""
    ratios, cpu_ratios = (
        [round(each[kind] / other[kind], 4) for each, other in zip(times, base, strict=True)] for kind in (0, 1)
    )
    return {
        "ms": 1e3 * median(wall for wall, _ in times),
        "ratio": median(ratios),
        "ratios": ratios,
        "cpu_ratio": median(cpu_ratios),
        "cpu_ratios": cpu_ratios,
    }


def _peak() -> float:
    return best_rate(_PEAK_SIZE, torch.device("cpu"), torch.float32, _PEAK_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
