"""What CSV and JSON Lines files share: rows of text, sliced by the bytes that they begin at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.sources.lines import open_unzipped
from mlim_ray.data.sources.listing import Identity, Listing
from mlim_ray.data.sources.pictures import PictureFolder, picture_identity
from mlim_ray.data.sources.source import SLICE_RECORDS, ZIPPED_SLICES, Slice, cut


@dataclass(frozen=True)
class RowFile:
    """One file of rows: about 32 bytes for every SLICE_RECORDS rows."""

    info: storage.FileInfo
    is_zipped: bool
    slice_offsets: tuple[int, ...]
    """byte at which each run of SLICE_RECORDS rows begins, unzipped"""
    num_rows: int

    def slices(self, number: int) -> list[Slice]:
        """Runs of rows."""
        if self.is_zipped:
            return cut(number, 0, self.num_rows, ZIPPED_SLICES)
        return [
            Slice(number, start, min(start + SLICE_RECORDS, self.num_rows))
            for start in range(0, self.num_rows, SLICE_RECORDS)
        ]


def identity_of(files: Iterable[RowFile], places: PicturePlaces) -> Identity:
    """Name, size and change stamp of every file, and of the picture files by folder."""
    return [(file.info.relative, file.info.num_bytes, file.info.stamp) for file in files] + places.identity()


def slices_of(files: Iterable[RowFile]) -> list[Slice]:
    """All slices of the files, in order."""
    return [part for number, file in enumerate(files) for part in file.slices(number)]


@contextmanager
def opened_at(file: RowFile, row: int) -> Iterator[tuple[BinaryIO, int]]:
    """The file, at most SLICE_RECORDS rows before `row`, and how many rows there are to be skipped."""
    with open_unzipped(file.info.path) as (opened, _):
        known, skipped = divmod(row, SLICE_RECORDS)
        opened.seek(file.slice_offsets[known])
        yield opened, skipped


@dataclass(frozen=True)
class PicturePlaces:
    """Where the pictures lie that files name: in one folder, or each file's beside it."""

    image_folder: str | None
    beside: tuple[str, ...]
    """folders of the files, where there is no image folder"""
    known: tuple[tuple[str, int, str], ...] | None
    """identity of the pictures as far as they were listed with the source"""

    @classmethod
    def of(cls, files: list[storage.FileInfo], listing: Listing, config: PrepareConfig) -> PicturePlaces:
        """The places for `files`, which were found in `listing`."""
        if config.image_folder is not None:
            return cls(storage.absolute(config.image_folder), (), None)
        beside = tuple(sorted({storage.parent(file.path) for file in files}))
        return cls(None, beside, None if listing.is_file else tuple(picture_identity(listing)))

    def folder(self, file: storage.FileInfo) -> PictureFolder:
        """Where the pictures of `file` lie."""
        return PictureFolder(self.image_folder or storage.parent(file.path))

    def identity(self) -> Identity:
        """The identity of all pictures."""
        if self.known is not None:
            return list(self.known)
        roots = self.beside if self.image_folder is None else (self.image_folder,)
        return list(chain.from_iterable(PictureFolder(root).identity() for root in roots))
