"""What a model makes of one picture and one title: words, paintings, and the nearest records.

Every caption says what was shown, what was hidden, and what is the model's.

Legend: N cells, D width, H, W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlim_ray.data.preprocessing import to_pixels
from mlim_ray.data.text import CleanText, clean_text
from mlim_ray.data.tokenizer import MASK
from mlim_ray.evaluation.pictures import masked_png, picture_png
from mlim_ray.evaluation.showing import Shown
from mlim_ray.inference.gallery import Gallery, Neighbour
from mlim_ray.inference.guess import WordGuess
from mlim_ray.inference.loaded_model import LoadedModel

NUM_WORDS = 5
NUM_NEIGHBOURS = 8
NUM_UNTOLD = 3
"""words that are told of a picture without a title (our choice)"""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Question:
    """A picture, a title, or both."""

    text: str = ""
    """`[MASK]` stands for a word to fill in; without any, each word is hidden in turn"""
    picture: bytes | None = None
    """a file"""
    hidden: float = 0.8
    """share of the picture's cells to hide"""
    seed: int = 0
    """of the choice of these cells"""


@dataclass(frozen=True)
class HiddenWord:
    """One place of the title."""

    word: str | None
    """what stood there; None where the title has [MASK]"""
    guesses: dict[str, list[WordGuess]]
    """the likeliest first, by what was shown beside the other words"""


@dataclass(frozen=True)
class Painting:
    """One picture."""

    name: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Answer:
    """What there is to show; a caption tells how each part was made, or why it is empty."""

    words_caption: str
    words: list[HiddenWord]
    paintings_caption: str
    paintings: list[Painting]
    neighbours_caption: str
    neighbours: list[Neighbour]


class Respondent:
    """Answers with one model.

    Args:
        model: that is asked.
        gallery: where neighbours are looked for; None: nowhere.
    """

    def __init__(self, model: LoadedModel, gallery: Gallery | None = None) -> None:
        self.model = model
        self.gallery = gallery
        # A picture is made what training saw once; a second time would lose by JPEG again.
        self._seen = LoadedModel(model.model, replace(model.preprocessor, image_encoding="raw"))

    def answer(self, question: Question) -> Answer:
        """The answer to a question.

        Raises:
            ValueError: it holds neither a picture nor a title, or one that cannot be used.
        """
        text = self._cleaned(question.text)
        if not text and question.picture is None:
            raise ValueError("neither a picture nor a title is given; drop a picture, type a title, or both")
        pixels_HW3 = None
        if question.picture is not None:
            rules = self.model.preprocessor.image_rules
            pixels_HW3 = to_pixels(question.picture, rules, self.model.preprocessor.image_encoding)[0]
        words_caption, words = self._words(text, pixels_HW3)
        paintings_caption, paintings = self._paintings(text, pixels_HW3, question.hidden, question.seed)
        neighbours_caption, neighbours = self._neighbours(text, pixels_HW3)
        return Answer(words_caption, words, paintings_caption, paintings, neighbours_caption, neighbours)

    def _cleaned(self, text: str) -> str:
        found = clean_text(text, self.model.preprocessor.max_text_characters) if text.strip() else None
        if found is not None and not isinstance(found, CleanText):
            raise ValueError(f"the title cannot be used: {found.reason.value} ({found.detail}); type another")
        return "" if found is None else found.text

    def _words(self, text: str, pixels_HW3: Pixels | None) -> tuple[str, list[HiddenWord]]:
        given = text.split()
        true_words: list[str] = []
        beside = "the whole picture, and without one" if pixels_HW3 is not None else "no picture"
        if not text:
            texts = [" ".join([MASK] * NUM_UNTOLD)]
            caption = f"No title was given: {NUM_UNTOLD} hidden words, told from the whole picture and nothing else."
        elif MASK in text:
            texts = [text]
            caption = f"Each {MASK} was hidden; the model saw the other words with {beside}."
        else:
            turns = [(" ".join([*given[:i], MASK, *given[i + 1 :]]), word) for i, word in enumerate(given)]
            mask_id = self.model.model.config.mask_token_id
            splits = self.model.preprocessor.split([turn for turn, _ in turns])
            turns = [turn for turn, pieces in zip(turns, splits, strict=True) if mask_id in pieces.token_ids]
            texts, true_words = [turn for turn, _ in turns], [word for _, word in turns]
            caption = f"Each word was hidden in turn by one {MASK}; the model saw the other words with {beside}."
            if len(turns) < len(given):
                caption += f" It reads the first {len(turns)} of the {len(given)} words."
        shown: dict[str, Pixels | None] = {}
        if pixels_HW3 is not None:
            shown["with the picture"] = pixels_HW3
        if text:
            shown["without a picture"] = None
        guesses = {name: self._fill(texts, pixels) for name, pixels in shown.items()}
        number = min((len(found) for found in guesses.values()), default=0)
        words = [
            HiddenWord(
                true_words[i] if i < len(true_words) else None, {name: found[i] for name, found in guesses.items()}
            )
            for i in range(number)
        ]
        caption += " Per cent: the model's own probability over its whole vocabulary, not calibrated."
        return caption, words

    def _fill(self, texts: Sequence[str], pixels_HW3: Pixels | None) -> list[list[WordGuess]]:
        """Guesses for all hidden words, one text after the other."""
        pictures = None if pixels_HW3 is None else [pixels_HW3] * len(texts)
        return [place for found in self._seen.fill(texts, pictures, num_words=NUM_WORDS) for place in found]

    def _paintings(self, text: str, pixels_HW3: Pixels | None, hidden: float, seed: int) -> tuple[str, list[Painting]]:
        cell_size = self.model.model.config.cell_size
        found: list[Painting] = []
        if pixels_HW3 is not None:
            hidden_N = self._seen.hidden_cells(hidden, seed)
            side = round(len(hidden_N) ** 0.5)
            hidden_HW = hidden_N.reshape(side, side).repeat(cell_size, 0).repeat(cell_size, 1)
            painted_HW3 = np.asarray(self._seen.reconstruct(pixels_HW3, text or None, hidden=hidden_N))
            composite_HW3 = np.where(hidden_HW[..., None], painted_HW3, pixels_HW3)
            beside = "the title" if text else "no title"
            share = f"{hidden_N.sum()} of {len(hidden_N)} cells"
            found = [
                Painting("input", "the picture as the model takes it", picture_png(pixels_HW3, cell_size)),
                Painting("hidden", f"{share} hidden", masked_png(pixels_HW3, hidden_HW, cell_size)),
                Painting(
                    "reconstruction",
                    f"predicted, every pixel, from the other cells and {beside}",
                    picture_png(painted_HW3, cell_size),
                ),
                Painting(
                    "composite",
                    "predicted where hidden; the rest is copied from the input",
                    picture_png(composite_HW3, cell_size),
                ),
            ]
        if text:
            from_title_HW3 = np.asarray(self._seen.reconstruct(text=text))
            found.append(
                Painting(
                    "from the title alone",
                    "predicted, every pixel; no cell of any picture was shown",
                    picture_png(from_title_HW3, cell_size),
                )
            )
        size = self.model.model.config.image_size
        return f"The model takes and paints {size} x {size} pixels.", found

    def _neighbours(self, text: str, pixels_HW3: Pixels | None) -> tuple[str, list[Neighbour]]:
        if self.gallery is None:
            return "None are looked for: start the demo with --neighbours SOURCE to name records.", []
        is_told = bool(text.replace(MASK, " ").strip())
        if not is_told and pixels_HW3 is None:
            return "None: the title has no visible word, so there is nothing to be near to.", []
        shown: Shown = "both" if is_told and pixels_HW3 is not None else "text" if is_told else "image"
        vector_D = self._seen.embed(images=pixels_HW3, texts=text if is_told else None)
        by = {"both": "picture and title together", "text": "their titles alone", "image": "their pictures alone"}
        caption = (
            f"The nearest of {len(self.gallery.keys):,} records of {self.gallery.name} by {by[shown]}: cosine of the "
            "encoder's mean states, less the mean of all records. The model may have been trained on them."
        )
        return caption, self.gallery.nearest(vector_D, shown, NUM_NEIGHBOURS)
