"""What a process is left with after one training, set back before the next: a trial must not depend on the last one."""

import gc
import random

import numpy as np
import torch


def begin_afresh(seed: int, num_threads: int) -> None:
    """Set all that is global to what a process that trains nothing else would have.

    Nothing of ours draws from global generators but the weights, which are drawn after torch's was seeded; libraries
    may.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.set_num_threads(num_threads)
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)


def release_memory(*, was_compiled: bool) -> None:
    """Give back what a training held, once nothing refers to it any more.

    Args:
        was_compiled: whether torch.compile made code for it. That is thrown away too: a process keeps only so many
            variants of it, and runs what comes after them as it is.
    """
    if was_compiled:
        torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def spare_from_collection() -> None:
    """Let the collector pass over all that there is now: what a process loads once would be looked through each time
    that memory is given back."""
    gc.collect()
    gc.freeze()


def limit_to_share(gpu_ratio: float) -> None:
    """Let this process take that share of its GPU's memory and no more, so that it fails and not one beside it."""
    if torch.cuda.is_available() and gpu_ratio < 1.0:
        torch.cuda.set_per_process_memory_fraction(gpu_ratio)
