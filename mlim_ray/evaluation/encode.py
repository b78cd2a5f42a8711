"""Frozen features of records.

Legend: R records, N cells, D width.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from mlim_ray.data.records import Records
from mlim_ray.evaluation.partner_probe import slices
from mlim_ray.evaluation.showing import Shown, encode_pooled
from mlim_ray.model import MlimModel
from mlim_ray.training.batch import Batch
from mlim_ray.training.tensors import to_tensors


@torch.inference_mode()
def image_features(model: MlimModel, records: Records, *, with_title: bool) -> NDArray[np.float32]:
    """Mean state of the image cells [R, D], no cell hidden; the title's words all shown or all hidden."""
    was_training = model.training
    model.eval()
    num_records = len(records.key_hash_R)
    hidden_RT = np.zeros_like(records.word_of_token_RT, bool) if with_title else records.word_of_token_RT >= 0
    batch = Batch(
        records.key_hash_R,
        np.zeros(num_records, np.int64),
        records.pixels_RHW3,
        records.token_ids_RT,
        records.num_tokens_R,
        np.zeros(num_records, np.int8),
        np.zeros((num_records, model.config.num_cells), bool),
        hidden_RT,
    )
    features = [
        model.encode(*to_tensors(batch.take(part), model.device)[:5]).cells_BND.mean(1).float().cpu().numpy()
        for part in slices(num_records)
    ]
    model.train(was_training)
    return np.concatenate(features)


@torch.inference_mode()
def pooled_features(model: MlimModel, records: Records, shown: Shown) -> NDArray[np.float32]:
    """The pooled state of each record [R, D], as `encode_pooled` gives it."""
    was_training = model.training
    model.eval()
    features = [
        encode_pooled(model, records.take(part), shown).float().cpu().numpy()
        for part in slices(len(records.key_hash_R))
    ]
    model.train(was_training)
    return np.concatenate(features)
