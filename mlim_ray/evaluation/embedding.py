"""Embeddings of records: what the encoder makes of the picture, of the text, and of both.

Legend: R records, D width.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from mlim_ray.config.embed import EmbedConfig
from mlim_ray.data.records import Records
from mlim_ray.evaluation.examples import slices
from mlim_ray.evaluation.showing import SHOWN, Shown, pooled, shown_batch
from mlim_ray.model import MlimModel
from mlim_ray.training.precision import autocast
from mlim_ray.training.tensors import to_tensors

Embeddings = dict[Shown, NDArray[np.float32]]
"""by what is shown, each [R, D]"""
COLUMN_OF: dict[Shown, str] = {"image": "image", "text": "text", "both": "joint"}
"""what is shown, and the column of its embedding where they are stored"""


@torch.inference_mode()
def embed(
    model: MlimModel,
    records: Records,
    config: EmbedConfig,
    *,
    shown: tuple[Shown, ...] = SHOWN,
) -> Embeddings:
    """The pooled states of all records, on the model's device.

    A record's embedding is the same beside any other records, but for the last bits, which may depend on how many are
    computed together.

    Args:
        model: in evaluation mode.
        records: any number of them.
        config: batch size, precision, and whether lengths become 1; its dtype is of what is stored.
        shown: which embeddings to compute.
    """
    num_cells, width = model.config.num_cells, model.config.hidden_size
    found: Embeddings = {side: np.empty((len(records.key_hash_R), width), np.float32) for side in shown}
    for part in slices(len(records.key_hash_R), config.batch_size):
        for side, out_RD in found.items():
            batch = shown_batch(records.take(part), side, num_cells)
            inputs = to_tensors(batch, model.device)
            with autocast(model.device.type, config.precision):
                state_BD = pooled(model.encode(*inputs[:6]), inputs).float()
            if config.normalise:
                state_BD = torch.nn.functional.normalize(state_BD)
            out_RD[part] = state_BD.cpu().numpy()
    return found
