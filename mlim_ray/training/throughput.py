"""How fast a run computes and how much memory it takes: what every logged line says of it besides its losses."""

import resource
import sys
import time

import torch

from mlim_ray.config import TrainConfig
from mlim_ray.model import MlimConfig
from mlim_ray.model.flops import Contents, step_flops
from mlim_ray.training.batch import Batch
from mlim_ray.training.distributed import sum_over_workers
from mlim_ray.training.matmul_peak import matmul_peak


def contents_of(batch: Batch) -> Contents:
    """What a batch holds, as its operations are counted."""
    num_records, num_cells = batch.cell_hidden_BN.shape
    num_tokens_B = batch.num_tokens_B.astype(float)
    num_visible_B = num_cells - batch.cell_hidden_BN.sum(1)
    return Contents(
        num_records * num_cells,
        int(num_visible_B.sum()),
        float(num_tokens_B.sum()),
        int(batch.token_hidden_BT.sum()),
        float(((num_cells + num_tokens_B) ** 2).sum()),
        float(((num_visible_B + num_tokens_B) ** 2).sum()),
    )


class Throughput:
    """Counts what a worker's batches hold between two logged lines.

    Args:
        shape: of the model.
        train: `peak_flops` and `precision` decide over the peak; it is measured here unless it is given.
        device: where this worker computes.
    """

    def __init__(self, shape: MlimConfig, train: TrainConfig, device: torch.device) -> None:
        self._shape = shape
        self._device = device
        if train.peak_flops == "measured":
            dtype = torch.bfloat16 if train.precision == "bfloat16" else torch.float32
            self.peak_flops = matmul_peak(device, dtype)
        else:
            self.peak_flops = train.peak_flops
        self.restart()

    def restart(self) -> None:
        """Begin an interval now: what was before, such as the start of a run, counts for nothing."""
        self._contents = Contents(*(0.0,) * len(Contents._fields))
        self._since = time.perf_counter()

    def add(self, batch: Batch) -> None:
        """Count this worker's share of a step in."""
        self._contents = Contents._make(a + b for a, b in zip(self._contents, contents_of(batch), strict=True))

    def read_and_reset(self) -> dict[str, float]:
        """The figures since the last call, of all workers together; called on each of them.

        `time/tokens_per_s`: present text positions and image cells. `time/mfu_ratio`: operations a second that the
        model's step needs (`mlim_ray.model.flops`) over the peak of the workers' devices. `memory/peak_gib`: the most
        that this worker's process has held since it began; on a GPU, that its tensors have held there.
        """
        elapsed_s = max(time.perf_counter() - self._since, 1e-9)
        num_tokens = self._contents.num_tokens + self._contents.num_cells
        own = [num_tokens, step_flops(self._shape, self._contents), self.peak_flops]
        num_tokens, flops, peak_flops = sum_over_workers(
            torch.tensor(own, dtype=torch.float64, device=self._device)
        ).tolist()
        self.restart()
        return {
            "time/tokens_per_s": num_tokens / elapsed_s,
            "time/mfu_ratio": flops / elapsed_s / peak_flops,
            "memory/peak_gib": peak_memory(self._device) / 2**30,
        }


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors held on the GPU, or this process in main memory, since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
