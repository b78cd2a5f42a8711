"""The step that we compare with: ViLT of the transformers library, its MLM head and our decoder, on the same batches.

The decoder is written with torch's own modules, as somebody would who adds it to ViLT. A hidden word is [MASK]; the
pixels of a hidden cell are zero, for ViLT has no mask for patches. It attends from and to every position that its
attention mask allows, computes the others too, and gives logits at all text positions, as `ViltForMaskedLM` does.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ViltConfig, ViltForMaskedLM

from mlim_ray.model import MlimConfig
from mlim_ray.objectives import pixels_of_cells
from mlim_ray.objectives.inputs import BatchTensors

_IGNORED = -100


class ViltStep(nn.Module):
    """The loss of a batch, [], as our config weighs it."""

    def __init__(self, shape: MlimConfig, recon_weight: float) -> None:
        super().__init__()
        self.mask_token_id = shape.mask_token_id
        self.recon_weight = recon_weight
        self.grid_side = shape.image_size // shape.cell_size
        self.vilt = ViltForMaskedLM(
            ViltConfig(
                hidden_size=shape.hidden_size,
                num_hidden_layers=shape.num_hidden_layers,
                num_attention_heads=shape.num_attention_heads,
                intermediate_size=4 * shape.hidden_size,
                image_size=shape.image_size,
                patch_size=shape.cell_size,
                vocab_size=shape.vocab_size,
                max_position_embeddings=shape.max_tokens,
                pad_token_id=shape.pad_token_id,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                max_image_length=-1,
            )
        )
        widths = (shape.hidden_size, *shape.decoder_channels, 3)
        layers: list[nn.Module] = []
        for num_in, num_out in pairwise(widths):
            layers += [nn.ConvTranspose2d(num_in, num_out, kernel_size=2, stride=2), nn.GELU()]
        self.decoder = nn.Sequential(*layers[:-1], nn.Sigmoid())

    def forward(self, inputs: BatchTensors) -> Tensor:
        """One forward pass with both losses."""
        pixels_B3HW, hidden_BT = inputs.pixels_B3HW, inputs.token_hidden_BT
        num_records, num_tokens = hidden_BT.shape
        hidden_BHW = pixels_of_cells(inputs.cell_hidden_BN, pixels_B3HW.shape[-1])
        states_BSD = self.vilt.vilt(
            input_ids=inputs.token_ids_BT.masked_fill(hidden_BT, self.mask_token_id),
            attention_mask=inputs.token_present_BT.long(),
            pixel_values=pixels_B3HW.masked_fill(hidden_BHW[:, None], 0.0),
            pixel_mask=torch.ones(num_records, *pixels_B3HW.shape[2:], dtype=torch.long),
        ).last_hidden_state
        logits_BTV = self.vilt.mlm_score(states_BSD[:, :num_tokens])
        labels_BT = inputs.token_ids_BT.masked_fill(~hidden_BT, _IGNORED)
        mlm = F.cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten(), ignore_index=_IGNORED)
        # The first state of the picture is that of ViLT's own [CLS].
        cells_BDN = states_BSD[:, num_tokens + 1 :].transpose(1, 2)
        picture_B3HW = self.decoder(cells_BDN.unflatten(2, (self.grid_side, self.grid_side)))
        recon = (picture_B3HW - pixels_B3HW).square().sum(1).mean()
        return mlm + self.recon_weight * recon
