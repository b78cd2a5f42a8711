"""A light contrastive fine-tune: InfoNCE between two projections (CLIP, with a fixed temperature: our choice).

Legend: B records, D width, V word pieces, X values of a picture, E width of an embedding.
"""

import copy
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mlim_ray.config.fine_tune import FineTuneConfig
from mlim_ray.data.records import Records
from mlim_ray.evaluation.examples import slices
from mlim_ray.evaluation.features import bag_of_pieces, pieces_of, raw_pixels
from mlim_ray.evaluation.fine_tuning import fine_tune
from mlim_ray.evaluation.repeats import picture_digests, text_digests
from mlim_ray.evaluation.showing import encode_pooled
from mlim_ray.model import MlimModel

Side = Literal["image", "text"]
_TOGETHER = 256


class Towers(nn.Module):
    """Something that gives each side of a record an embedding."""

    width: int
    """of the encoder; without one, of the embeddings"""

    def forward(self, records: Records, side: Side) -> Tensor:
        """Embeddings [B, E] of any length."""
        raise NotImplementedError


class EncoderTowers(Towers):
    """A copy of an encoder that is shown one side at a time, and a projection for each side."""

    def __init__(self, model: MlimModel, width: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.width = model.config.hidden_size
        self.encoder = copy.deepcopy(model)
        self.projections = nn.ModuleDict(
            {side: nn.Linear(model.config.hidden_size, width, bias=False) for side in ("image", "text")}
        ).to(model.device)

    def forward(self, records: Records, side: Side) -> Tensor:
        """Projections of the pooled states."""
        out: Tensor = self.projections[side](encode_pooled(self.encoder, records, side))
        return out


class LinearTowers(Towers):
    """The baseline without any encoder: projections of raw pixels and of a bag of pieces."""

    def __init__(self, train: Records, width: int, seed: int, device: torch.device) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.width = width
        self._piece_ids_V = pieces_of(train)
        pixels = raw_pixels(train)
        self._mean_X, self._std = pixels.mean(0), float(pixels.std()) or 1.0
        widths = {"image": pixels.shape[1], "text": len(self._piece_ids_V)}
        self.projections = nn.ModuleDict(
            {side: nn.Linear(inputs, width, bias=False) for side, inputs in widths.items()}
        ).to(device)
        self._device = device

    def forward(self, records: Records, side: Side) -> Tensor:
        """Projections of the bare features."""
        if side == "image":
            features = (raw_pixels(records) - self._mean_X) / self._std
        else:
            features = bag_of_pieces(records, self._piece_ids_V)
        out: Tensor = self.projections[side](torch.from_numpy(features).to(self._device))
        return out


def contrastive_loss(image_BE: Tensor, text_BE: Tensor, is_other_BB: Tensor, temperature: float) -> Tensor:
    """InfoNCE both ways: each picture among the batch's titles and each title among its pictures.

    Args:
        image_BE: embeddings of the pictures, of any length.
        text_BE: embeddings of their titles.
        is_other_BB: where a title is wrong for a picture; other pairs off the diagonal are neither right nor wrong and
            are left out.
        temperature: similarities are divided by it.
    """
    similarity_BB = F.normalize(image_BE.float(), dim=1) @ F.normalize(text_BE.float(), dim=1).T / temperature
    own_BB = torch.eye(len(image_BE), dtype=torch.bool, device=image_BE.device)
    similarity_BB = similarity_BB.masked_fill(~(is_other_BB | own_BB), -torch.inf)
    target_B = torch.arange(len(image_BE), device=image_BE.device)
    return (F.cross_entropy(similarity_BB, target_B) + F.cross_entropy(similarity_BB.T, target_B)) / 2


def train_towers(
    towers: Towers,
    train: Records,
    config: FineTuneConfig,
    temperature: float,
    seed: int,
    on_progress: Callable[[int, int], None],
) -> None:
    """Bring pictures and their titles together, in place.

    Records of a batch that share a title or a picture are no wrong pairs of each other, and are masked out.
    """
    title_R, picture_R = text_digests(train), picture_digests(train)

    def loss_of(index: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        records = train.take(index)
        title_B, picture_B = title_R[index], picture_R[index]
        is_other_BB = (title_B[:, None] != title_B) & (picture_B[:, None] != picture_B)
        image_BE, text_BE = towers(records, "image"), towers(records, "text")
        return contrastive_loss(image_BE, text_BE, torch.from_numpy(is_other_BB).to(image_BE.device), temperature)

    fine_tune(towers, loss_of, len(train.key_hash_R), config, towers.width, seed, on_progress)


@torch.inference_mode()
def embed(towers: Towers, records: Records, side: Side) -> NDArray[np.float64]:
    """Embeddings [B, E] of length 1."""
    parts = [
        F.normalize(towers(records.take(part), side).double(), dim=1).cpu().numpy()
        for part in slices(len(records.key_hash_R), _TOGETHER)
    ]
    return np.concatenate(parts)
