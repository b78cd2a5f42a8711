"""A process of trials loads what it trains with, and nothing of what proposes trials or draws pages."""

from __future__ import annotations

import subprocess
import sys

import pytest

NOT_NEEDED = ("optuna", "sqlalchemy", "sklearn", "scipy", "plotly", "jinja2", "mlflow", "torch._dynamo")
LOOK = f"""
import sys
import mlim_ray.pipelines.search.group_trial, mlim_ray.pipelines.search.trial, mlim_ray.pipelines.search.trial_faults
print(*[name for name in {NOT_NEEDED} if name in sys.modules])
"""


@pytest.mark.slow
def test_a_process_of_trials_loads_no_sampler_and_no_page() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
