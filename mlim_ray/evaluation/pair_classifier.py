"""Same product or not: an encoder and a small head, fine-tuned on pairs of listings.

Legend: B pairs, R = 2 B listings, a pair's two next to each other, N cells, T token positions, P rows of the encoder,
D width.
"""

import copy
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mlim_ray.config.pairs import Encoding, PairsConfig
from mlim_ray.data.records import Records
from mlim_ray.evaluation.examples import slices
from mlim_ray.evaluation.fine_tuning import fine_tune
from mlim_ray.evaluation.pair_making import Indices, Pairs
from mlim_ray.evaluation.showing import SHOWN, Shown, encode_pooled, pooled, shown_batch
from mlim_ray.model import MlimModel, MlimStates
from mlim_ray.model.layout import Layout
from mlim_ray.training.tensors import to_tensors

_PAIRS_TOGETHER = 128


class PairClassifier(nn.Module):
    """A copy of an encoder under a head that reads |a - b| and a * b of the two listings' pooled states.

    Siamese: each listing goes through the encoder alone. Cross: cells and words of both are one sequence, in which
    every position attends to both listings; positions are the model's own, and a learned embedding of the side is added
    to tell the two apart (our choice throughout: the paper does not say how a pair enters the model).
    """

    def __init__(self, encoder: MlimModel, encoding: Encoding) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder = copy.deepcopy(encoder)
        self.sides = nn.Embedding(2, width) if encoding == "cross" else None
        self.head = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, 1))
        if self.sides is not None:
            nn.init.normal_(self.sides.weight, std=encoder.config.initializer_range)
        self.to(encoder.device)

    def forward(self, listings: Records, shown_R: NDArray[np.str_] | Shown) -> Tensor:
        """Logits [B] of being one product; `shown_R` names the sides that each listing shows."""
        if self.sides is None:
            pooled_RD = encode_pooled(self.encoder, listings, shown_R)
        else:
            pooled_RD = self._encode_together(self.sides, listings, shown_R)
        first_BD, second_BD = pooled_RD.unflatten(0, (-1, 2)).unbind(1)
        logits_B1: Tensor = self.head(torch.cat([(first_BD - second_BD).abs(), first_BD * second_BD], 1))
        return logits_B1[:, 0]

    def _encode_together(self, sides: nn.Embedding, listings: Records, shown_R: NDArray[np.str_] | Shown) -> Tensor:
        """Pooled states [R, D] of listings that see the other one of their pair."""
        model = self.encoder
        inputs = to_tensors(shown_batch(listings, shown_R, model.config.num_cells), model.device)
        apart = inputs.layout
        # Flattened, [R, N] and [B, 2 N] are the same, and so are the rows of both layouts: what differs is who attends.
        joined = Layout.of(
            *(
                mask.flatten().unflatten(0, (-1, 2 * mask.shape[1]))
                for mask in (inputs.token_present_BT, inputs.cell_hidden_BN, inputs.token_hidden_BT)
            )
        )
        embedded_PD = model.embed(inputs.pixels_B3HW, inputs.token_ids_BT, inputs.token_hidden_BT, apart)
        num_listings, num_tokens = inputs.token_ids_BT.shape
        num_cells = inputs.cell_hidden_BN.shape[1]
        listing_of_cell = torch.arange(num_listings, device=model.device).repeat_interleave(num_cells)
        listing_P = torch.cat([listing_of_cell, apart.token_U // num_tokens])
        x_PD = model.embedding_dropout(model.embedding_norm(embedded_PD + sides(listing_P % 2)))
        x_PD = model.encoder(x_PD, joined, len(x_PD))
        num_cell_rows, width = num_listings * num_cells, x_PD.shape[1]
        tokens_XD = x_PD.new_zeros(num_listings * num_tokens, width).index_copy(0, apart.token_U, x_PD[num_cell_rows:])
        states = MlimStates(
            x_PD[:num_cell_rows].view(num_listings, num_cells, width), tokens_XD.view(num_listings, num_tokens, width)
        )
        return pooled(states, inputs)


def train_classifier(
    encoder: MlimModel,
    encoding: Encoding,
    records: Records,
    pairs: Pairs,
    config: PairsConfig,
    seed: int,
    *,
    modality_dropout: bool,
    on_progress: Callable[[int, int], None] | None = None,
) -> PairClassifier:
    """A classifier fine-tuned on pairs, each in a drawn order of its two listings; the encoder given stays as it is.

    With modality dropout (MLIM) each listing of each step shows its picture, its title or both, as the config says how
    often; what is dropped is hidden by the [MASK] embedding, as in pre-training (our choice).
    """
    torch.manual_seed(seed)
    classifier = PairClassifier(encoder, encoding)
    ratios = (config.image_only_ratio, config.text_only_ratio)
    is_same_P = torch.from_numpy(pairs.is_same_P.astype(np.float32)).to(encoder.device)
    pair_P2 = np.stack([pairs.first_P, pairs.second_P], 1)

    def loss_of(batch: Indices, rng: np.random.Generator) -> Tensor:
        pair_B2 = rng.permuted(pair_P2[batch], axis=1)
        shown_R: NDArray[np.str_] | Shown = "both"
        if modality_dropout:
            shown_R = rng.choice(SHOWN, pair_B2.size, p=[*ratios, 1.0 - sum(ratios)])
        logits_B = classifier(records.take(pair_B2.flatten()), shown_R)
        return F.binary_cross_entropy_with_logits(logits_B.float(), is_same_P[torch.from_numpy(batch)])

    fine_tune(classifier, loss_of, len(pair_P2), config.fine_tune, encoder.config.hidden_size, seed, on_progress)
    return classifier


@torch.inference_mode()
def score_pairs(classifier: PairClassifier, records: Records, pairs: Pairs, shown: Shown) -> NDArray[np.float64]:
    """Logit of each pair [P] with the named sides of all listings shown: the mean over both orders of its listings."""
    pair_P2 = np.stack([pairs.first_P, pairs.second_P], 1)
    both_orders = [
        [
            classifier(records.take(pair_B2.flatten()), shown).double().cpu().numpy()
            for pair_B2 in (ordered_P2[part] for part in slices(len(pair_P2), _PAIRS_TOGETHER))
        ]
        for ordered_P2 in ((pair_P2,) if classifier.sides is None else (pair_P2, pair_P2[:, ::-1]))
    ]
    return np.mean([np.concatenate(logits) for logits in both_orders], axis=0)
