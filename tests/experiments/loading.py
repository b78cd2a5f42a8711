"""Experiments as modules, from their files."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

EXPERIMENTS = sorted((Path(__file__).resolve().parents[2] / "experiments").glob("*.py"))

Main = Callable[[Sequence[str]], int]


def load_main(path: Path) -> Main:
    """The entry point of the experiment in a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Main = module.main
    return main


def run_main(path: Path) -> Main:
    """What runs an experiment in a process of its own, as a person does; tests of one process may share a Ray."""
    return lambda flags: subprocess.run([sys.executable, str(path), *flags]).returncode
