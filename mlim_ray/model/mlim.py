"""MLIM: one transformer over image cells and words, an MLM head, and an image decoder.

Legend: B records, N cells, T token positions, D width, V vocabulary, M hidden pieces of the whole batch.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from mlim_ray.model.configuration import MlimConfig
from mlim_ray.model.decoder import ImageDecoder
from mlim_ray.model.embedder import ImageEmbedder
from mlim_ray.model.encoder import Encoder


@dataclass(frozen=True)
class MlimStates:
    """What the encoder makes of a batch."""

    cells_BND: Tensor
    tokens_BTD: Tensor


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


class MlimModel(PreTrainedModel):
    """The pre-trained model: `encode`, then `mlm_logits` at the hidden pieces and `reconstruct` for the picture.

    Hidden words and hidden cells are replaced by one shared embedding, that of [MASK], before positions are added
    (MLIM). Positions are separate per modality, and no modality embedding is used (MLIM).
    """

    config_class = MlimConfig
    base_model_prefix = "mlim"
    main_input_name = "pixels_B3HW"

    config: MlimConfig

    def __init__(self, config: MlimConfig) -> None:
        super().__init__(config)
        width, eps = config.hidden_size, config.layer_norm_eps
        self.image_embedder = ImageEmbedder(config.embedder_channels)
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.cell_positions = nn.Parameter(torch.zeros(config.num_cells, width))
        self.token_positions = nn.Parameter(torch.zeros(config.max_tokens, width))
        self.embedding_norm = nn.LayerNorm(width, eps)
        self.embedding_dropout = nn.Dropout(config.dropout_ratio)
        self.encoder = Encoder(
            width,
            config.num_hidden_layers,
            config.num_attention_heads,
            pre_norm=config.pre_norm,
            dropout_ratio=config.dropout_ratio,
            eps=eps,
        )
        self.mlm_head = MlmHead(width, config.vocab_size, eps)
        self.image_decoder = ImageDecoder(width, config.decoder_channels, config.image_size // config.cell_size)
        self.post_init()

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
        elif isinstance(module, MlimModel):
            nn.init.normal_(module.cell_positions, std=std)
            nn.init.normal_(module.token_positions, std=std)

    def forward(
        self,
        pixels_B3HW: Tensor,
        token_ids_BT: Tensor,
        token_present_BT: Tensor,
        cell_hidden_BN: Tensor,
        token_hidden_BT: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Logits [M, V] of the hidden pieces, in row-major order, and the reconstruction [B, 3, H, W]."""
        states = self.encode(pixels_B3HW, token_ids_BT, token_present_BT, cell_hidden_BN, token_hidden_BT)
        return self.mlm_logits(states.tokens_BTD[token_hidden_BT]), self.reconstruct(states.cells_BND)

    def encode(
        self,
        pixels_B3HW: Tensor,
        token_ids_BT: Tensor,
        token_present_BT: Tensor,
        cell_hidden_BN: Tensor,
        token_hidden_BT: Tensor,
    ) -> MlimStates:
        """States of cells and tokens.

        Args:
            pixels_B3HW: float in [0, 1].
            token_ids_BT: int64; anything where a token is absent.
            token_present_BT: bool, False at padding, which never changes an output.
            cell_hidden_BN: bool, cells replaced by [MASK].
            token_hidden_BT: bool, pieces replaced by [MASK].
        """
        mask_D = self.word_embeddings.weight[self.config.mask_token_id]
        num_cells, num_tokens = self.config.num_cells, token_ids_BT.shape[1]
        cells_BND = torch.where(cell_hidden_BN[..., None], mask_D, self.image_embedder(pixels_B3HW))
        tokens_BTD = torch.where(token_hidden_BT[..., None], mask_D, self.word_embeddings(token_ids_BT))
        x_BSD = torch.cat([cells_BND + self.cell_positions, tokens_BTD + self.token_positions[:num_tokens]], dim=1)
        present_BS = F.pad(token_present_BT, (num_cells, 0), value=True)
        x_BSD = self.encoder(self.embedding_dropout(self.embedding_norm(x_BSD)), present_BS)
        return MlimStates(x_BSD[:, :num_cells], x_BSD[:, num_cells:])

    def mlm_logits(self, token_states_MD: Tensor) -> Tensor:
        """Vocabulary logits [M, V] for the states of hidden pieces."""
        logits: Tensor = self.mlm_head(token_states_MD, self.word_embeddings.weight)
        return logits

    def reconstruct(self, cell_states_BND: Tensor) -> Tensor:
        """The whole picture [B, 3, H, W] in [0, 1] from the states of its cells."""
        picture: Tensor = self.image_decoder(cell_states_BND)
        return picture
