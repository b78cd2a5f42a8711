"""Features of records that need no pre-training: what every downstream score must be seen against (contract C10).

Legend: R records, V word pieces, X values of a picture, D width.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.decomposition import PCA

from mlim_ray.data.records import Records

_RAW_SIDE = 32


def raw_pixels(records: Records) -> NDArray[np.float32]:
    """Pictures [R, X] in [0, 1], at 32x32 if they are larger."""
    pixels = records.pixels_RHW3
    if pixels.shape[1] > _RAW_SIDE:
        pixels = np.stack(
            [np.asarray(Image.fromarray(p).resize((_RAW_SIDE, _RAW_SIDE), Image.Resampling.BOX)) for p in pixels]
        )
    return pixels.reshape(len(pixels), -1).astype(np.float32) / 255.0


def fit_pca(pixels_RX: NDArray[np.float32], width: int) -> PCA:
    """Principal components of pictures, as many as the encoder is wide where there are so many."""
    return PCA(min(width, *pixels_RX.shape), random_state=0).fit(pixels_RX)


def bag_of_pieces(records: Records, piece_ids_V: NDArray[np.int64]) -> NDArray[np.float32]:
    """How often each of these pieces occurs in each text [R, V]; the ids ascend, other pieces are not counted."""
    counts = np.zeros((len(records.key_hash_R), len(piece_ids_V)), np.float32)
    row, position = np.nonzero(np.isin(records.token_ids_RT, piece_ids_V) & (records.word_of_token_RT >= 0))
    np.add.at(counts, (row, np.searchsorted(piece_ids_V, records.token_ids_RT[row, position])), 1.0)
    return counts


def pieces_of(records: Records) -> NDArray[np.int64]:
    """Ids of the pieces that occur in any text, ascending."""
    return np.unique(records.token_ids_RT[records.word_of_token_RT >= 0]).astype(np.int64)
