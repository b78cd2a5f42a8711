"""What every benchmark shares: processes of their own for what is measured, and a JSON record of what came out."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_WORK = os.path.join(tempfile.gettempdir(), "mlim-ray-benchmarks")
_PACKAGES = ("ray", "torch", "pyarrow", "pillow", "numpy", "webdataset", "datasets")

Figures = dict[str, Any]


def num_cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def median(values: Iterable[float]) -> float:
    """The middle value, to three significant places or so."""
    return round(statistics.median(values), 3)


def spread(values: Sequence[float]) -> str:
    """Median with the least and the greatest, as a table shows them."""
    return f"{median(values):.2f} [{min(values):.2f}-{max(values):.2f}]"


def run_cell(module: str, *arguments: object) -> Figures:
    """Run one measurement, `python -m module --cell ...`, in a process of its own; its last line is its figures.

    Raises:
        RuntimeError: the process failed; with the end of what it wrote.
    """
    command = [sys.executable, "-m", module, "--cell", *map(str, arguments)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2_000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def machine() -> Figures:
    """The machine and the versions that figures depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": num_cores(),
        "memory_gib": round(memory / 2**30, 1),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_at_start": [round(load, 2) for load in os.getloadavg()],
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def write_record(out: str | None, record: Figures) -> None:
    """Write the figures with the command that gave them to `out`, or nowhere if it is not given."""
    if out is None:
        return
    content = {
        "command": f"python -m {_module()} {' '.join(sys.argv[1:])}",
        "written": time.strftime("%F %T"),
        **record,
    }
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Replaced as a whole: a run that continues from it never finds half a record.
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(path)


def _module() -> str:
    return f"benchmarks.{Path(sys.argv[0]).stem}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
