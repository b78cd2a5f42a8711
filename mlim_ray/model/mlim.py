"""MLIM: one transformer over image cells and words, an MLM head, and an image decoder.

Legend: B records, N cells, T token positions, D width, V vocabulary, M hidden pieces of the whole batch.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlim_ray.model.blocks import Grid
from mlim_ray.model.configuration import MlimConfig
from mlim_ray.model.decoder import ImageDecoder
from mlim_ray.model.embedders import make_embedder
from mlim_ray.model.encoders import make_encoder
from mlim_ray.model.layout import Layout
from mlim_ray.model.positions import positions_on


@dataclass(frozen=True)
class MlimStates:
    """What the encoder makes of a batch."""

    cells_BND: Tensor
    tokens_BTD: Tensor


class TargetStates(NamedTuple):
    """States of what losses are taken of, and of nothing else."""

    cells_BND: Tensor
    pieces_MD: Tensor
    """of the hidden pieces, in row-major order"""


class MlmHead(nn.Module):
    """BERT's MLM head: a dense layer, GELU, norm, and logits through the word embeddings."""

    def __init__(self, width: int, vocab_size: int, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, states_MD: Tensor, word_embeddings_VD: Tensor) -> Tensor:
        """Logits [M, V]."""
        return F.linear(self.norm(F.gelu(self.dense(states_MD))), word_embeddings_VD, self.bias)


class MlimModel(nn.Module):
    """The pre-trained model: `encode`, then `mlm_logits` at the hidden pieces and `reconstruct` for the picture.

    Hidden words and hidden cells are replaced by one shared embedding, that of [MASK], before positions are added
    (MLIM). Positions are separate per modality, and no modality embedding is used (MLIM).

    What others load is `MlimPreTrainedModel` in `pretrained.py`. The model itself needs no transformers: its modelling
    code would cost each process that trains or measures seconds at its start and a hundred megabytes.
    """

    config: MlimConfig

    def __init__(self, config: MlimConfig) -> None:
        super().__init__()
        self.config = config
        self._add_layers(config)
        self.apply(self._init_weights)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.word_embeddings.weight.device

    def _add_layers(self, config: MlimConfig) -> None:
        width, eps = config.hidden_size, config.layer_norm_eps
        grid = Grid(config.cell_size)
        self.image_embedder = make_embedder(config, grid)
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.cell_positions = nn.Parameter(torch.zeros(config.num_cells, width))
        self.token_positions = nn.Parameter(torch.zeros(config.max_tokens, width))
        self.embedding_norm = nn.LayerNorm(width, eps)
        self.embedding_dropout = nn.Dropout(config.dropout_ratio)
        self.encoder = make_encoder(config)
        self.mlm_head = MlmHead(width, config.vocab_size, eps)
        self.image_decoder = ImageDecoder(width, config.decoder_channels, grid)

    def _init_weights(self, module: nn.Module) -> None:
        """As BERT: normal with std 0.02, zero biases; convolutions keep torch's own (our choice)."""
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif module is self:
            nn.init.normal_(self.cell_positions, std=std)
            nn.init.normal_(self.token_positions, std=std)

    def forward(
        self,
        pixels_B3HW: Tensor,
        token_ids_BT: Tensor,
        token_present_BT: Tensor,
        cell_hidden_BN: Tensor,
        token_hidden_BT: Tensor,
        layout: Layout | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logits [M, V] of the hidden pieces, in row-major order, and the reconstruction [B, 3, H, W].

        The arguments are those of `encode`.
        """
        states = self.target_states(
            pixels_B3HW, token_ids_BT, token_present_BT, cell_hidden_BN, token_hidden_BT, layout
        )
        return self.mlm_logits(states.pieces_MD), self.reconstruct(states.cells_BND)

    def target_states(
        self,
        pixels_B3HW: Tensor,
        token_ids_BT: Tensor,
        token_present_BT: Tensor,
        cell_hidden_BN: Tensor,
        token_hidden_BT: Tensor,
        layout: Layout | None = None,
    ) -> TargetStates:
        """States of all cells and of the hidden pieces; cheaper than `encode`, whose arguments it takes."""
        if layout is None:
            layout = Layout.of(token_present_BT, cell_hidden_BN, token_hidden_BT)
        x_RD = self._encode(pixels_B3HW, token_ids_BT, token_hidden_BT, layout, layout.num_targets)
        num_cells = cell_hidden_BN.numel()
        return TargetStates(x_RD[:num_cells].view(*cell_hidden_BN.shape, -1), x_RD[num_cells:])

    def encode(
        self,
        pixels_B3HW: Tensor,
        token_ids_BT: Tensor,
        token_present_BT: Tensor,
        cell_hidden_BN: Tensor,
        token_hidden_BT: Tensor,
        layout: Layout | None = None,
    ) -> MlimStates:
        """States of cells and tokens, zeros at padding.

        Args:
            pixels_B3HW: float in [0, 1].
            token_ids_BT: int64; anything where a token is absent.
            token_present_BT: bool, False at padding, which never changes an output.
            cell_hidden_BN: bool, cells replaced by [MASK].
            token_hidden_BT: bool, pieces replaced by [MASK].
            layout: of these masks, if it was made before.
        """
        if layout is None:
            layout = Layout.of(token_present_BT, cell_hidden_BN, token_hidden_BT)
        x_PD = self._encode(pixels_B3HW, token_ids_BT, token_hidden_BT, layout, len(layout.place_P))
        num_cells, width = cell_hidden_BN.numel(), x_PD.shape[1]
        tokens = x_PD.new_zeros(token_ids_BT.numel(), width).index_copy(0, layout.token_U, x_PD[num_cells:])
        return MlimStates(x_PD[:num_cells].view(*cell_hidden_BN.shape, width), tokens.view(*token_ids_BT.shape, width))

    def mlm_logits(self, token_states_MD: Tensor) -> Tensor:
        """Vocabulary logits [M, V] for the states of hidden pieces."""
        logits: Tensor = self.mlm_head(token_states_MD, self.word_embeddings.weight)
        return logits

    def reconstruct(self, cell_states_BND: Tensor) -> Tensor:
        """The whole picture [B, 3, H, W] in [0, 1] from the states of its cells."""
        picture: Tensor = self.image_decoder(cell_states_BND)
        return picture

    def embed(self, pixels_B3HW: Tensor, token_ids_BT: Tensor, token_hidden_BT: Tensor, layout: Layout) -> Tensor:
        """What enters the encoder, before its norm: a row [P, D] for each cell and present token, in the layout's
        order, with [MASK] where something is hidden and positions added. The arguments are those of `encode`."""
        num_records, num_tokens = token_ids_BT.shape
        mask_id = self.config.mask_token_id
        mask_D = self.word_embeddings.weight[mask_id]
        visible_VD = self.image_embedder(pixels_B3HW, layout.visible_cell_V).to(mask_D.dtype)
        cells = mask_D.expand(layout.num_cells, -1).index_copy(0, layout.visible_cell_V, visible_VD)
        cells_BND = cells.unflatten(0, (num_records, -1))
        cells_BND = cells_BND + positions_on(cells_BND.shape[1], self.cell_positions)
        shown_U = token_ids_BT.masked_fill(token_hidden_BT, mask_id).flatten().index_select(0, layout.token_U)
        tokens_UD = self.word_embeddings(shown_U) + F.embedding(layout.token_U % num_tokens, self.token_positions)
        return torch.cat([cells_BND.flatten(0, 1), tokens_UD])

    def _encode(
        self, pixels_B3HW: Tensor, token_ids_BT: Tensor, token_hidden_BT: Tensor, layout: Layout, num_rows: int
    ) -> Tensor:
        """States of the layout's first rows [R, D]."""
        embedded_PD = self.embed(pixels_B3HW, token_ids_BT, token_hidden_BT, layout)
        x_PD = self.embedding_dropout(self.embedding_norm(embedded_PD))
        out: Tensor = self.encoder(x_PD, layout, num_rows)
        return out
