"""A folder of pictures per label as a source: `LABEL/NAME.jpg`, or `SPLIT/LABEL/NAME.jpg`."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import SPLIT_NAMES, RawRecord
from mlim_ray.data.manifest import Generated
from mlim_ray.data.rejection import Problem
from mlim_ray.data.schema import Columns, check_columns, text_template
from mlim_ray.data.sources.lines import MAX_LINE_BYTES, cut_text
from mlim_ray.data.sources.listing import Identity, Listing, to_text
from mlim_ray.data.sources.pictures import PictureFolder
from mlim_ray.data.sources.rows import Draft, text_of, to_record, with_pictures
from mlim_ray.data.sources.source import Slice, cut, in_batches
from mlim_ray.data.template import TextTemplate

CAPTION_SUFFIX = ".txt"
PATH, LABEL, STEM, CAPTION, SPLIT = "path", "label", "stem", "caption", "split"
_SUFFIX = r"\.[^./]*$"


@dataclass(frozen=True)
class LabelFolderSource:
    """The pictures below a folder, in the order of their paths. In memory a picture takes its path and 9 bytes.

    Columns: `path` (relative), `label` (the folders below the root, or below the split), `stem` (the file's name
    without its suffix), `caption` (the text file beside the picture) and `split` (the top folder, where top
    folders are named like splits). In a text `_` and `/` of labels and stems become spaces (our choice).
    The text is the caption where there is one, else the label; `--text` replaces the label, and the caption too
    where it names `{caption}`. The key is the path.
    """

    name: str
    columns: Columns
    root: str
    paths_P: pa.LargeBinaryArray
    has_caption_P: NDArray[np.bool_]
    has_splits: bool
    prefers_caption: bool
    found: tuple[tuple[str, int, str], ...]
    """identity of pictures and captions by folder"""
    format: str = "folder per label"
    generated: Generated | None = None

    @classmethod
    def open(cls, name: str, listing: Listing, chosen_F: NDArray[np.bool_], config: PrepareConfig) -> LabelFolderSource:
        """The chosen files of `listing` as pictures.

        Raises ValueError for a column that there is not, and where neither folders nor captions nor `--text`
        give a text.
        """
        if config.image_folder is not None:
            raise ValueError(f"--image-folder given for {name}, whose pictures lie in it; leave it out")
        chosen_F = chosen_F & ~listing.hidden()
        captions_F = listing.of_suffix(CAPTION_SUFFIX.__eq__) & ~listing.hidden() & ~chosen_F
        pictures = listing.take(chosen_F)
        captions = listing.take(captions_F)
        has_caption = pc.is_in(_stems(pictures.names_F), value_set=_stems(captions.names_F))
        has_caption_P = has_caption.to_numpy(zero_copy_only=False)
        has_splits = _has_splits(pictures.names_F)
        columns, prefers_caption = _columns(name, config, bool(has_caption_P.any()), has_splits)
        has_folders = bool(pc.any(pc.match_substring(pictures.names_F, "/")).as_py())
        if columns.text_columns == (LABEL,) and not has_folders and not prefers_caption:
            raise ValueError(
                f"{name} holds pictures, but no folder per label and no captions; expected LABEL/NAME.jpg or a "
                f"NAME.txt beside NAME.jpg, or name the text with --text {{stem}}"
            )
        found = listing.take(chosen_F | captions_F).identity()
        return cls(
            name, columns, listing.root, pictures.names_F, has_caption_P, has_splits, prefers_caption, tuple(found)
        )

    @property
    def column_types(self) -> dict[str, str]:
        """What there is of each picture; all of it is text."""
        return dict.fromkeys(_names(bool(self.has_caption_P.any()), self.has_splits), "string")

    @property
    def identity(self) -> Identity:
        """Bytes, and a hash of names, sizes and change stamps, of each folder's pictures and captions."""
        return list(self.found)

    def slices(self) -> list[Slice]:
        """Runs of pictures."""
        return cut(0, 0, len(self.paths_P))

    def read(self, part: Slice) -> Iterator[list[RawRecord]]:
        """The records of a slice. A record's source is its path, and its row the number of the picture."""
        folder = PictureFolder(self.root)
        yield from in_batches(with_pictures(self._drafts(part, folder), folder))

    def _drafts(self, part: Slice, folder: PictureFolder) -> Iterator[Draft]:
        paths = [to_text(path) for path in self.paths_P[part.start : part.stop].to_pylist()]
        wanted = self.prefers_caption or CAPTION in self.columns.names()
        has_caption = [wanted and bool(has) for has in self.has_caption_P[part.start : part.stop]]
        captions = folder.read_each(
            (posixpath.splitext(path)[0] + CAPTION_SUFFIX for path, has in zip(paths, has_caption, strict=True) if has),
            MAX_LINE_BYTES + 1,
        )
        for row, (path, has) in enumerate(zip(paths, has_caption, strict=True), part.start):
            caption = next(captions) if has else None
            if isinstance(caption, Problem):
                problem = Problem(caption.reason, f"caption: {caption.detail}")
                yield RawRecord(path, row, path, None, None, problem=problem), None
            else:
                yield self._record(row, path, None if caption is None else cut_text(caption)), path

    def _record(self, row: int, path: str, caption: bytes | None) -> RawRecord:
        label, base = posixpath.split(path)
        split = None
        if self.has_splits:
            split, _, label = label.partition("/")
        stem = posixpath.splitext(base)[0]
        values = {PATH: path, LABEL: label, STEM: stem, CAPTION: caption, SPLIT: split}
        record = to_record(self.columns, path, row, values, path)
        if self.prefers_caption and caption is not None and caption.strip():
            return replace(record, text=caption)
        return replace(record, text=text_of(self.columns, values | {LABEL: _words(label), STEM: _words(stem)}))


def _columns(name: str, config: PrepareConfig, has_captions: bool, has_splits: bool) -> tuple[Columns, bool]:
    """The column of each role, and whether a caption is taken before what they say."""
    given = text_template(config)
    template = given if given is not None or config.text_column is not None else TextTemplate.parse(f"{{{LABEL}}}")
    prefers_caption = has_captions and template is not None and CAPTION not in template.columns
    columns = Columns(
        image=config.image_column or PATH,
        text=config.text_column or "",
        key=config.key_column,
        label=config.label_column or LABEL,
        group=config.group_column,
        split=config.split_column or (SPLIT if has_splits else None),
        template=template,
    )
    check_columns(pa.schema([(column, pa.string()) for column in _names(has_captions, has_splits)]), columns, name)
    if config.attribute_columns:
        raise ValueError(
            f"--attribute-columns {','.join(config.attribute_columns)}: pictures in folders have no attributes, and "
            f"{name} is a folder per label; leave it out, or name a table"
        )
    if columns.image != PATH:
        raise ValueError(f"--image-column {columns.image}: the pictures of {name} are its files; leave it out")
    if template is not None:
        # Only for people: the text itself is put together record by record.
        shown = f"{{{CAPTION}}}, else {template.text}" if prefers_caption else template.text
        columns = replace(columns, text=shown)
    return columns, prefers_caption


def _names(has_captions: bool, has_splits: bool) -> list[str]:
    return [PATH, LABEL, STEM, *([CAPTION] if has_captions else []), *([SPLIT] if has_splits else [])]


def _stems(names: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    return pc.replace_substring_regex(names, _SUFFIX, "")


def _has_splits(paths: pa.LargeBinaryArray) -> bool:
    """Whether top folders are splits: all of them, or at least two, so that one label may be called `test`."""
    tops = pc.replace_substring_regex(paths.filter(pc.match_substring(paths, "/")), "/(?s:.*)$", "").unique()
    splits = {SPLIT_NAMES.get(to_text(top).lower()) for top in tops.to_pylist()}
    return bool(splits) and (None not in splits or len(splits - {None}) >= 2)


def _words(name: str) -> str:
    return name.replace("_", " ").replace("/", " ")
