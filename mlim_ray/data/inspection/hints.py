"""What a person should do before preparing a source: one line each, with the flag that mends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlim_ray.data.inspection.share import share
from mlim_ray.data.rejection import Reason

if TYPE_CHECKING:
    from mlim_ray.data.inspection.facts import Inspection

_WORTH_SAYING = 0.01
"""shares below this are in the figures, but no hint"""
_MENDS = {
    Reason.MISSING_PICTURE: "name the folder that the paths are relative to with --image-folder",
    Reason.PATH_OUTSIDE_FOLDER: "name the folder that all pictures lie in with --image-folder",
    Reason.UNREADABLE_PICTURE: "check that --image-column names the pictures",
    Reason.TOO_SMALL: "allow smaller pictures with --min-image-side",
    Reason.TOO_MANY_PIXELS: "allow larger pictures with --max-image-pixels, which costs memory and time",
    Reason.EMPTY_TEXT: "check that --text-column names the texts",
    Reason.NULL_KEY: "name a column without gaps with --key-column",
    Reason.UNKNOWN_SPLIT: "name another column with --split-column",
    Reason.INVALID_UTF8: "write the texts as UTF-8",
    Reason.MALFORMED_ROW: "quote fields that hold the delimiter",
}


def hints_of(found: Inspection) -> Iterator[str]:
    """The hints for an inspection, the most urgent first."""
    yield from _about_rejected(found)
    yield from _about_keys(found)
    yield from _about_splits(found)
    yield from _about_texts(found)
    yield from _about_pictures(found)
    if "label" not in found.columns:
        yield "no label column, so there will be no linear probe: name one with --label-column if there is one"


def _about_rejected(found: Inspection) -> Iterator[str]:
    rejected = found.num_sampled - found.num_accepted
    if not rejected:
        return
    if any("URLs are not downloaded" in rejection.detail for rejection in found.rejections):
        yield "pictures are named by URLs, which are not downloaded: fetch them first, for example with img2dataset"
    commonest = next(iter(found.reasons))
    mend = _MENDS.get(Reason(commonest), "mend the source")
    if found.num_accepted == 0:
        yield f"no record of the sample would be accepted, most for {commonest}: {mend}"
    elif rejected > found.max_rejected_ratio * found.num_sampled:
        yield (
            f"prepare would stop: {share(rejected, found.num_sampled)} of the sample are rejected, at most "
            f"{found.max_rejected_ratio:.1%} are allowed: {mend}, or raise --max-rejected-ratio"
        )


def _about_keys(found: Inspection) -> Iterator[str]:
    if "key" not in found.columns:
        yield "no key column: records are told apart by file and row; name one with --key-column if there is one"
    elif found.num_repeated_keys:
        yield (
            f"{found.num_repeated_keys} of {found.num_accepted} keys of the sample occur again ({found.repeated_key}): "
            f"of each key only the first record is kept; check that --key-column {found.columns['key']} is right"
        )


def _about_splits(found: Inspection) -> Iterator[str]:
    if found.num_groups_across:
        yield (
            f"{found.num_groups_across} of {found.num_groups} groups of the sample have records in several splits, "
            f"so held-out figures will look too good: mend the split column, or leave it out"
        )
    if found.num_accepted and "train" not in found.splits:
        yield "no accepted record of the sample is in split train: check --split-column"


def _about_texts(found: Inspection) -> Iterator[str]:
    texts = found.texts
    if texts is None:
        return
    if texts.num_cut_tokens >= _WORTH_SAYING * texts.num_texts:
        yield (
            f"{share(texts.num_cut_tokens, texts.num_texts)} of the texts have more than {texts.max_tokens} pieces "
            f"and will be cut: raise --max-tokens (95 % have at most {texts.tokens.p95}, the longest has "
            f"{texts.tokens.maximum})"
        )
    if texts.num_cut_characters >= _WORTH_SAYING * texts.num_texts:
        yield (
            f"{share(texts.num_cut_characters, texts.num_texts)} of the texts have more than "
            f"{texts.max_text_characters} characters and will be cut: raise --max-text-characters"
        )
    if texts.unknown_ratio >= _WORTH_SAYING:
        yield (
            f"{texts.unknown_ratio:.1%} of the pieces are unknown to the vocabulary: "
            + ("take another --tokenizer" if texts.tokenizer else "raise --vocabulary-size")
        )


def _about_pictures(found: Inspection) -> Iterator[str]:
    pictures = found.pictures
    if found.fit == "stretch" and pictures.num_extreme >= _WORTH_SAYING * max(1, pictures.num_measured):
        yield (
            f"{share(pictures.num_extreme, pictures.num_measured)} of the pictures are more than "
            f"{pictures.max_aspect_ratio:g} times as long as wide or as wide as long ({pictures.most_extreme}): they "
            f"are made square by --extreme-fit {found.extreme_fit}, the others by --fit stretch; see the page of --html"
        )
    if pictures.num_enlarged >= 0.5 * max(1, pictures.num_measured):
        yield (
            f"{share(pictures.num_enlarged, pictures.num_measured)} of the pictures are smaller than "
            f"{found.image_size} x {found.image_size} and will be enlarged: a smaller --image-size saves disk and time"
        )
