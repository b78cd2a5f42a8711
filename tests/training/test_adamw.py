"""Our AdamW does what torch's fused one does, to the last bit, and takes over from it; it loads no compiler."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from mlim_ray.training.adamw import AdamW

BETAS = (0.85, 0.97)


def made() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(7, 12), nn.LayerNorm(12), nn.GELU(), nn.Linear(12, 3))


def ours(model: nn.Module) -> AdamW:
    return AdamW([(list(model[0].parameters()), 0.3), (list(model[1:].parameters()), 0.0)], BETAS)  # type: ignore[index]


def torchs(model: nn.Module) -> torch.optim.AdamW:
    groups = [
        {"params": list(model[0].parameters()), "weight_decay": 0.3},  # type: ignore[index]
        {"params": list(model[1:].parameters()), "weight_decay": 0.0},  # type: ignore[index]
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=True)


def train(model: nn.Module, optimiser: Any, steps: range) -> None:
    """Steps whose rate and gradients differ; every third leaves the last layer's bias without a gradient."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        optimiser.zero_grad()
        for name, parameter in model.named_parameters():
            if name != "3.bias" or step % 3:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 / (step + 1)
        optimiser.step()


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_each_bit_is_that_of_torch() -> None:
    one, other = made(), made()
    first, second = ours(one), torchs(other)
    train(one, first, range(20))
    train(other, second, range(20))
    assert same(one, other) and not same(one, made())
    kept, known = first.state_dict()["state"], second.state_dict()["state"]
    assert kept.keys() == known.keys()
    for number, state in known.items():
        assert kept[number].keys() == state.keys()
        assert all(torch.equal(kept[number][name], value) for name, value in state.items())


@pytest.mark.parametrize("begun_by", [ours, torchs])
def test_it_goes_on_from_a_state_of_either(begun_by: Any) -> None:
    whole = made()
    train(whole, torchs(whole), range(20))
    model = made()
    before = begun_by(model)
    train(model, before, range(9))
    after = ours(model)
    after.load_state_dict(before.state_dict())
    train(model, after, range(9, 20))
    assert same(model, whole)


def test_gradients_can_be_set_to_zero() -> None:
    model = made()
    optimiser = ours(model)
    model(torch.ones(2, 7)).sum().backward()
    optimiser.zero_grad(set_to_none=False)
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())
    optimiser.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.slow
def test_training_loads_no_compiler() -> None:
    code = """
import sys, tempfile
from pathlib import Path
from tests.made_runs import run_config, train_run
train_run(Path(tempfile.mkdtemp()), run_config())
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
