"""What can be done with a trained model, on pictures and texts as users have them.

Legend: B records, N cells, T token positions, D width, V vocabulary, M hidden pieces of the batch, H, W pixels.
"""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mlim_ray.data.counter import draw
from mlim_ray.data.preprocessing import Picture, Preprocessor, as_list, is_picture
from mlim_ray.data.tokenizer import MASK, SPECIAL_TOKENS
from mlim_ray.inference.guess import WordGuess
from mlim_ray.model import MlimModel
from mlim_ray.model.named_inputs import Arguments, named_inputs
from mlim_ray.model.pooling import pooled_states
from mlim_ray.objectives.itc import NUM_UNSHOWN_PIECES

Hidden = float | NDArray[np.bool_]
"""A share of the cells, which a seed chooses, or the cells themselves: bool [N], or in the rows of the grid."""

_TOGETHER = 256
_CELLS = 41


class LoadedModel:
    """A trained model and what makes its inputs, in evaluation mode.

    A picture is a path (local or s3://), the bytes of a file, a PIL picture, or uint8 pixels [H, W, 3]; a list of them
    gives a list of results. Pictures and texts are made what training saw, as `Preprocessor` says.
    """

    def __init__(self, model: MlimModel, preprocessor: Preprocessor) -> None:
        self.model = model.eval()
        self.preprocessor = preprocessor
        vocabulary = preprocessor.tokenizer.tokenizer.get_vocab()
        self._words = {i: p for p, i in vocabulary.items() if p not in SPECIAL_TOKENS and not p.startswith("##")}
        self._is_word_V = torch.tensor([i in self._words for i in range(model.config.vocab_size)], device=model.device)

    # A string is a sequence of strings to a type checker; it takes the first that fits.
    @overload
    def fill(  # type: ignore[overload-overlap]
        self, text: str, image: Picture | None = None, *, num_words: int = 5
    ) -> list[list[WordGuess]]: ...

    @overload
    def fill(
        self, text: Sequence[str], image: Sequence[Picture] | None = None, *, num_words: int = 5
    ) -> list[list[list[WordGuess]]]: ...

    @torch.inference_mode()
    def fill(
        self, text: str | Sequence[str], image: Picture | Sequence[Picture] | None = None, *, num_words: int = 5
    ) -> list[list[WordGuess]] | list[list[list[WordGuess]]]:
        """The likeliest words at each `[MASK]` of a text, seen with its picture or without any.

        A `[MASK]` is one piece of the vocabulary, so what is proposed are the words that are a single piece.

        Args:
            text: one text or several.
            image: the picture of each.
            num_words: how many words for each `[MASK]`.

        Returns:
            For each `[MASK]` its guesses, the likeliest first; for several texts a list of those.

        Raises:
            ValueError: a text has no `[MASK]`, or an input cannot be used.
        """
        texts = [text] if isinstance(text, str) else list(text)
        mask_id = self.model.config.mask_token_id
        for i, pieces in enumerate(self.preprocessor.split(texts)):
            if mask_id not in pieces.token_ids:
                raise ValueError(
                    f"text {i} has no [MASK] within its first {self.preprocessor.max_tokens} pieces: {texts[i]!r}; "
                    "write [MASK] in the place of the word to fill in"
                )
        out: list[list[list[WordGuess]]] = []
        for inputs in self._batches(image, texts):
            hidden_BT = inputs[-1]
            states = self.model.encode(*inputs)
            probability_MV = self.model.mlm_logits(states.tokens_BTD[hidden_BT]).float().softmax(1)
            words_MV = probability_MV.masked_fill(~self._is_word_V, -1.0)
            best = words_MV.topk(min(num_words, len(self._words)), dim=1)
            guesses = [
                [WordGuess(self._words[i], p) for i, p in zip(ids, values, strict=True)]
                for ids, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
            for num_hidden in hidden_BT.sum(1).tolist():
                out.append(guesses[:num_hidden])
                guesses = guesses[num_hidden:]
        return out[0] if isinstance(text, str) else out

    @torch.inference_mode()
    def embed(
        self, images: Picture | Sequence[Picture] | None = None, texts: str | Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """One vector [D] for a record, [B, D] for several: of pictures, of texts, or of both together.

        The mean state of the cells, of the tokens, or the mean of the two, as evaluations pool them.

        Raises:
            ValueError: neither is given, or an input cannot be used.
        """
        alone = is_picture(images) if images is not None else isinstance(texts, str)
        if texts is None and images is not None:
            # Of a picture alone evaluations know nothing of its text, not even how long it is.
            texts = [" ".join([MASK] * NUM_UNSHOWN_PIECES)] * len(as_list(images))
        vectors = []
        for inputs in self._batches(images, texts):
            states = self.model.encode(*inputs)
            vectors.append(pooled_states(states.cells_BND, states.tokens_BTD, *inputs[2:]).float().cpu().numpy())
        if not vectors:
            return np.zeros((0, self.model.config.hidden_size), np.float32)
        joined: NDArray[np.float32] = np.concatenate(vectors)
        return joined[0] if alone else joined

    @overload
    def reconstruct(
        self, image: Picture | None = None, text: str | None = None, *, hidden: Hidden = 1.0, seed: int = 0
    ) -> Image.Image: ...

    @overload
    def reconstruct(
        self,
        image: Sequence[Picture] | None = None,
        text: Sequence[str] | None = None,
        *,
        hidden: Hidden = 1.0,
        seed: int = 0,
    ) -> list[Image.Image]: ...

    @torch.inference_mode()
    def reconstruct(
        self,
        image: Picture | Sequence[Picture] | None = None,
        text: str | Sequence[str] | None = None,
        *,
        hidden: Hidden = 1.0,
        seed: int = 0,
    ) -> Image.Image | list[Image.Image]:
        """The picture as the model paints it from the cells that are not hidden and the text; every pixel is predicted.

        Args:
            image: one picture or several; without any, all cells are hidden.
            text: the text of each; without any, it is empty.
            hidden: the share of the cells to hide, or which; by default all, so that the text alone is left.
            seed: of the choice of cells where a share is given; the same for every picture.

        Raises:
            ValueError: neither picture nor text is given, `hidden` is no share or not of the grid, or an input cannot
                be used.
        """
        alone = is_picture(image) if image is not None else isinstance(text, str)
        cell_hidden_N = torch.from_numpy(self.hidden_cells(hidden, seed)).to(self.model.device)
        out: list[Image.Image] = []
        for inputs in self._batches(image, text, cell_hidden_N):
            states = self.model.encode(*inputs)
            levels_B3HW = self.model.reconstruct(states.cells_BND).float().mul(255.0).round().to(torch.uint8)
            out += [Image.fromarray(levels_HW3) for levels_HW3 in levels_B3HW.permute(0, 2, 3, 1).cpu().numpy()]
        return out[0] if alone else out

    def _batches(
        self,
        images: Picture | Sequence[Picture] | None,
        texts: str | Sequence[str] | None,
        cell_hidden_N: Tensor | None = None,
    ) -> Iterator[Arguments]:
        """The model's inputs, at most `_TOGETHER` records at a time; `cell_hidden_N` are hidden in each picture."""
        if images is None and texts is None:
            raise ValueError("neither a picture nor a text is given; expected at least one of them")
        pictures = None if images is None else as_list(images)
        words = None if texts is None else [texts] if isinstance(texts, str) else list(texts)
        if pictures is not None and words is not None and len(pictures) != len(words):
            raise ValueError(f"{len(pictures)} pictures and {len(words)} texts; expected one text for each picture")
        for start in range(0, len(pictures or words or ()), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            arrays = self.preprocessor(
                None if pictures is None else pictures[part], None if words is None else words[part]
            )
            inputs = {name: torch.from_numpy(array).to(self.model.device) for name, array in arrays.items()}
            if cell_hidden_N is not None and pictures is not None:
                inputs["bool_masked_pos"] = cell_hidden_N.expand(len(inputs["input_ids"]), -1)
            yield named_inputs(self.model, **inputs)

    def hidden_cells(self, hidden: Hidden, seed: int) -> NDArray[np.bool_]:
        """Which cells [N] are hidden. Raises ValueError as `reconstruct`."""
        num_cells = self.model.config.num_cells
        if isinstance(hidden, np.ndarray):
            side = round(num_cells**0.5)
            if hidden.dtype != np.bool_ or hidden.shape not in ((num_cells,), (side, side)):
                raise ValueError(
                    f"hidden is an array of {hidden.dtype} {list(hidden.shape)}; expected bool of [{num_cells}] or "
                    f"[{side}, {side}], the grid's cells"
                )
            return hidden.flatten()
        if not 0.0 <= hidden <= 1.0:
            raise ValueError(f"hidden {hidden}; expected a share of the cells from 0 to 1, or which cells to hide")
        chosen = draw(seed, _CELLS, np.arange(num_cells)).argsort(kind="stable")[: round(hidden * num_cells)]
        cell_hidden_N = np.zeros(num_cells, np.bool_)
        cell_hidden_N[chosen] = True
        return cell_hidden_N
