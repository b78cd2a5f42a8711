"""Pictures and texts made the inputs of the model, as transformers keeps such things; see `data/preprocessing.py`.

Legend: B records, T token positions, H, W pixels.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import CleaningRules
from mlim_ray.data.images import ImageRules
from mlim_ray.data.preprocessing import (
    Padding,
    Picture,
    Preprocessor,
    image_settings,
    pixel_values,
    read_image_settings,
    to_pixels,
)
from mlim_ray.data.tokenizer import CLS, MASK, PAD, SEP, UNK, TextTokenizer

PROCESSOR_FILE = "processor_config.json"
_DEFAULTS = image_settings(ImageRules(size=32), "raw")


class MlimImageProcessor(BaseImageProcessor):
    """Pictures -> `pixel_values`, by Pillow; its settings are those of `ImageRules`, and the stored encoding."""

    model_input_names: ClassVar[list[str]] = ["pixel_values"]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**_DEFAULTS, **kwargs})

    def preprocess(
        self, images: Picture | Sequence[Picture], *, return_tensors: Literal["pt", "np"] = "pt"
    ) -> BatchFeature:
        """`pixel_values`, float32 [B, 3, H, W] in [0, 1]. Raises ValueError that names a picture it cannot take."""
        return BatchFeature({"pixel_values": pixel_values(self.pixels(images))}, tensor_type=return_tensors)

    def pixels(self, images: Picture | Sequence[Picture]) -> NDArray[np.uint8]:
        """Pictures as a prepared set holds them, uint8 [B, H, W, 3]; raises as `preprocess` does."""
        return to_pixels(images, *read_image_settings(vars(self)))


class MlimProcessor(ProcessorMixin):
    """Image processor and tokenizer in one; texts are cleaned, cut and split as `prepare` does.

    Args:
        image_processor: makes `pixel_values`.
        tokenizer: makes `input_ids`.
        max_tokens: longer texts are cut at a word, [CLS] and [SEP] included.
        max_text_characters: longer texts are cut before they are split.
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values", "input_ids", "attention_mask"]

    def __init__(
        self,
        image_processor: MlimImageProcessor,
        tokenizer: PreTrainedTokenizerFast,
        max_tokens: int = 24,
        max_text_characters: int = 2_000,
    ) -> None:
        super().__init__(image_processor, tokenizer)
        self.max_tokens = max_tokens
        self.max_text_characters = max_text_characters
        # A copy: whoever calls the tokenizer itself with padding changes it for all later calls.
        splitter = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        splitter.no_padding()
        splitter.no_truncation()
        self._splitter = TextTokenizer(splitter)

    @classmethod
    def of(cls, config: PrepareConfig, tokenizer: TextTokenizer) -> "MlimProcessor":
        """What makes of records what a prepared set of this resolved config, with this tokenizer, holds of them."""
        names = {"pad_token": PAD, "unk_token": UNK, "cls_token": CLS, "sep_token": SEP, "mask_token": MASK}
        loaded = PreTrainedTokenizerFast(tokenizer_object=tokenizer.tokenizer, **names)
        rules = CleaningRules.of(config, has_split=False)
        images = MlimImageProcessor(**image_settings(rules.image, rules.image_encoding))
        return cls(images, loaded, config.max_tokens, config.max_text_characters)

    def __call__(
        self,
        images: Picture | Sequence[Picture] | None = None,
        text: str | Sequence[str] | None = None,
        *,
        padding: Padding = True,
        return_tensors: Literal["pt", "np"] = "pt",
    ) -> BatchFeature:
        """What `model(**...)` takes: `input_ids` and `attention_mask` [B, T], and `pixel_values` if there are pictures.

        Args:
            images: one picture or several: a path, the bytes of a file, a PIL picture, or uint8 pixels [H, W, 3].
            text: one text or several; `[MASK]` stands for a hidden piece of a word.
            padding: to the longest text, or to `max_tokens`.
            return_tensors: torch or numpy.

        Raises:
            ValueError: nothing is given, another number of texts than of pictures, or one that cannot be used.
        """
        rules, encoding = read_image_settings(vars(self.image_processor))
        make = Preprocessor(rules, encoding, self._splitter, self.max_tokens, self.max_text_characters)
        return BatchFeature(make(images, text, padding=padding), tensor_type=return_tensors)
