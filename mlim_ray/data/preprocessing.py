"""Pictures and texts as users have them, made what training saw: cleaned, decoded and split as by `prepare`.

Legend: B records, T token positions, H, W pixels.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mlim_ray.data import storage
from mlim_ray.data.images import (
    MAX_ENCODED_BYTES,
    ImageRules,
    Pixels,
    decode_image,
    decode_stored,
    encode_stored,
    fit_image,
    fit_pixels,
)
from mlim_ray.data.rejection import Problem, Reason
from mlim_ray.data.text import clean_text
from mlim_ray.data.tokenizer import Pieces, TextTokenizer

Picture = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
"""A path (local or s3://), the bytes of a file, an opened picture, or uint8 pixels [H, W, 3]."""
Padding = Literal[True, "longest", "max_length"]


@dataclass(frozen=True)
class Preprocessor:
    """What makes of pictures and texts the inputs of a model, as its prepared set holds them.

    A file's bytes, its path and a picture just opened from it give exactly the pixels that `prepare` stored of it, its
    loss by JPEG included. Whatever `prepare` rejects is refused, but for an empty text.
    """

    image_rules: ImageRules
    image_encoding: str
    tokenizer: TextTokenizer
    max_tokens: int
    max_text_characters: int

    def __call__(
        self,
        images: Picture | Sequence[Picture] | None = None,
        text: str | Sequence[str] | None = None,
        *,
        padding: Padding = True,
    ) -> dict[str, NDArray[Any]]:
        """`input_ids` and `attention_mask`, int64 [B, T], and `pixel_values`, float32 [B, 3, H, W] in [0, 1].

        Without a text it is empty, [CLS] and [SEP] alone; without pictures there are no `pixel_values`.

        Raises:
            ValueError: nothing is given, another number of texts than of pictures, or one that cannot be used.
        """
        texts = None if text is None else [text] if isinstance(text, str) else list(text)
        data: dict[str, NDArray[Any]] = {}
        if images is not None:
            data["pixel_values"] = pixel_values(to_pixels(images, self.image_rules, self.image_encoding))
            num_images = len(data["pixel_values"])
            texts = [""] * num_images if texts is None else texts
            if len(texts) != num_images:
                raise ValueError(f"{num_images} pictures and {len(texts)} texts; expected one text for each picture")
        if texts is None:
            raise ValueError("neither a picture nor a text is given; expected at least one of them")
        if padding not in (True, "longest", "max_length"):
            raise ValueError(f"padding {padding!r}; expected True or 'longest', or 'max_length'")
        pieces = self.split(texts)
        num_tokens = self.max_tokens if padding == "max_length" else max((len(p.token_ids) for p in pieces), default=2)
        data["input_ids"] = np.full((len(pieces), num_tokens), self.tokenizer.pad_id, np.int64)
        data["attention_mask"] = np.zeros((len(pieces), num_tokens), np.int64)
        for row, one in enumerate(pieces):
            data["input_ids"][row, : len(one.token_ids)] = one.token_ids
            data["attention_mask"][row, : len(one.token_ids)] = 1
        return data

    def split(self, texts: Sequence[str]) -> list[Pieces]:
        """Texts cleaned, split, and cut at a word."""
        cleaned = [_clean(i, text, self.max_text_characters) for i, text in enumerate(texts)]
        return self.tokenizer.encode(cleaned, self.max_tokens)


def is_picture(images: Any) -> bool:
    """Whether this is one picture, not several."""
    return isinstance(images, str | os.PathLike | bytes | Image.Image) or (
        isinstance(images, np.ndarray) and images.ndim == 3
    )


def as_list(images: Picture | Sequence[Picture]) -> list[Any]:
    """One picture or several as a list."""
    return [images] if is_picture(images) else list(images)  # type: ignore[arg-type]


def to_pixels(images: Picture | Sequence[Picture], rules: ImageRules, encoding: str) -> NDArray[np.uint8]:
    """Pictures as a prepared set holds them, uint8 [B, H, W, 3]. Raises ValueError that names one it cannot take."""
    given = as_list(images)
    out = np.empty((len(given), rules.size, rules.size, 3), np.uint8)
    for i, picture in enumerate(given):
        fitted = _fitted(picture, rules)
        if isinstance(fitted, Problem):
            number = "the picture" if is_picture(images) else f"picture {i}"
            name = picture if isinstance(picture, str | os.PathLike) else number
            raise ValueError(f"{name} cannot be used: {fitted.reason.value} ({fitted.detail}); give another picture")
        out[i] = decode_stored(encode_stored(fitted, encoding), rules.size, encoding)
    return out


def pixel_values(pixels_BHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Stored pixels -> float32 [B, 3, H, W] in [0, 1], by the arithmetic of training."""
    return np.ascontiguousarray(pixels_BHW3.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255.0)


def image_settings(rules: ImageRules, encoding: str) -> dict[str, Any]:
    """Rules in the form that is kept beside a model; `read_image_settings` reads them back."""
    return {
        **{name: value for name, value in vars(rules).items() if name != "size"},
        "background_colour": list(rules.background_colour),
        "image_size": rules.size,
        "image_encoding": encoding,
    }


def read_image_settings(settings: Mapping[str, Any]) -> tuple[ImageRules, str]:
    """Rules and encoding from what `image_settings` gave; other entries are passed over."""
    known = {name: settings[name] for name in ImageRules.__dataclass_fields__ if name in settings and name != "size"}
    red, green, blue = settings["background_colour"]
    rules = ImageRules(size=settings["image_size"], **{**known, "background_colour": (red, green, blue)})
    return rules, settings["image_encoding"]


def _clean(place: int, text: Any, max_characters: int) -> str:
    if not isinstance(text, str):
        raise ValueError(f"text {place} is a {type(text).__name__}; expected a string")
    cleaned = clean_text(text, max_characters)
    if not isinstance(cleaned, Problem):
        return cleaned.text
    if cleaned.reason is not Reason.EMPTY_TEXT:
        raise ValueError(f"text {place} cannot be used: {cleaned.reason.value} ({cleaned.detail}); give another text")
    return ""


def _fitted(picture: Any, rules: ImageRules) -> Pixels | Problem:
    if isinstance(picture, str | os.PathLike):
        return decode_image(storage.read_bytes(os.fspath(picture), MAX_ENCODED_BYTES + 1), rules)
    if isinstance(picture, bytes):
        return decode_image(picture, rules)
    if isinstance(picture, Image.Image):
        return fit_image(picture, rules)
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3:
        return fit_pixels(picture, rules)
    given = type(picture).__name__
    if isinstance(picture, np.ndarray):
        given = f"an array of {picture.dtype} {list(picture.shape)}"
    raise ValueError(
        f"a picture is given as {given}; expected a path, the bytes of a file, a PIL picture, or uint8 pixels of "
        "height x width x 3"
    )
