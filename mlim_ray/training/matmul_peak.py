"""How many operations a second a device makes of large matrix products: what utilisation is measured against."""

import time
from functools import lru_cache

import torch

_CPU_SIZES, _GPU_SIZES = (1_024, 2_048), (4_096, 8_192)
_FEWEST_PRODUCTS, _MOST_PRODUCTS = 3, 50


def matmul_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """Operations a second of the best of several products of square matrices, measured once a process.

    A device that is busy with something else gives less; so does a CPU with fewer threads than it has cores. Draws
    nothing from torch's generators.

    Args:
        device: where training runs.
        dtype: what its matrix products are computed in: float32, or that of autocast.
        seconds: about how long to measure.
    """
    return _measure(device, dtype, seconds, torch.get_num_threads())


@lru_cache
def _measure(device: torch.device, dtype: torch.dtype, seconds: float, num_threads: int) -> float:
    sizes = _GPU_SIZES if device.type == "cuda" else _CPU_SIZES
    return max(best_rate(size, device, dtype, seconds / len(sizes)) for size in sizes)


@torch.no_grad()
def best_rate(size: int, device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    # Zeros would take less power, and on a GPU less time, than the numbers of a model.
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    best, stop, number = 0.0, time.perf_counter() + seconds, 0
    while number < _FEWEST_PRODUCTS or (number < _MOST_PRODUCTS and time.perf_counter() < stop):
        best = max(best, 2.0 * size**3 / _time_of_one(a, b, out))
        number += 1
    return best


def _time_of_one(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> float:
    if a.device.type != "cuda":
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        return time.perf_counter() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    torch.mm(a, b, out=out)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3
