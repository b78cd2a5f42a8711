"""A Lance dataset as a source: a folder of columnar files with versions. It needs the package pylance."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.cleaning import RawRecord
from mlim_ray.data.manifest import Generated
from mlim_ray.data.rejection import shorten
from mlim_ray.data.schema import Columns, guess_columns, is_image_struct, is_text_type
from mlim_ray.data.sources.arrow_rows import to_records, to_values
from mlim_ray.data.sources.listing import Identity
from mlim_ray.data.sources.pictures import PictureFolder, refuse_urls
from mlim_ray.data.sources.source import Slice, cut, in_batches, source_label
from mlim_ray.data.sources.tables import PicturePlaces

_VERSIONS_FOLDER = "_versions"
_MANIFEST_SUFFIX = ".manifest"
_USER = re.compile(r"//[^/@\s]*@")
_S3_FAILED = "Generic S3 error"
_BLOB = "lance.blob.v2"
_SAMPLED_ROWS = 100
# Lance reads ahead, by default up to two gigabytes of it.
_BUFFER_BYTES = 64 << 20
# No file tells how large its values are, which may be hundreds of times what is stored of them. Of photographs, a
# hundred at once would save 5 us each.
_ROWS_AT_ONCE = 4


@dataclass(frozen=True)
class _Fragment:
    number: int
    """as Lance calls it"""
    first_row: int
    """of the dataset, deleted rows not counted"""
    num_rows: int


@dataclass(frozen=True)
class LanceSource:
    """The rows of one version of a Lance dataset, in its own order."""

    name: str
    path: str
    version: int
    columns: Columns
    column_types: dict[str, str]
    fragments: tuple[_Fragment, ...]
    manifest: tuple[str, int, str]
    """of the version, whose files have names that are used once: its name, the bytes of its data, its change stamp"""
    places: PicturePlaces | None
    """where the pictures lie that are paths; None if all are in the dataset"""
    format: str = "Lance"
    generated: Generated | None = None

    @classmethod
    def open(cls, name: str, path: str, config: PrepareConfig) -> LanceSource:
        """Pin the latest version of the dataset at `path`.

        Raises ValueError that names it where it is damaged, empty or no column fits a role, where the pictures are
        URLs, and where pylance is not installed.
        """
        with _reading(path):
            dataset = _dataset(path)
            version, schema = int(dataset.version), _as_read(dataset.schema)
            fragments = tuple(_fragments(dataset))
            files = [file for fragment in dataset.get_fragments() for file in fragment.data_files()]
        columns = guess_columns(schema, config, name)
        if not fragments:
            raise ValueError(f"{name} holds no records; expected at least one row")
        kind = schema.field(columns.image).type
        if is_text_type(kind):
            with _reading(path):
                first = dataset.head(_SAMPLED_ROWS, columns=[columns.image])
            refuse_urls(name, columns.image, to_values(first[columns.image].combine_chunks()))
        has_paths = is_text_type(kind) or is_image_struct(kind)
        image_folder = None if config.image_folder is None else storage.absolute(config.image_folder)
        return cls(
            name,
            path,
            version,
            columns,
            {field.name: str(field.type) for field in schema},
            fragments,
            _manifest(path, version, sum(file.file_size_bytes or 0 for file in files)),
            PicturePlaces(image_folder, (storage.parent(path),), None) if has_paths else None,
        )

    @property
    def identity(self) -> Identity:
        """The manifest of the version, and the picture files by folder where there are any."""
        return [self.manifest] if self.places is None else [self.manifest, *self.places.identity()]

    def slices(self) -> list[Slice]:
        """Parts of fragments; `file` is the number of one in `fragments`."""
        return [part for number, each in enumerate(self.fragments) for part in cut(number, 0, each.num_rows)]

    def read(self, part: Slice) -> Iterator[list[RawRecord]]:
        """The records of a slice."""
        yield from in_batches(self._read(part))

    def _read(self, part: Slice) -> Iterator[RawRecord]:
        fragment = self.fragments[part.file]
        source, row = source_label(self.path), fragment.first_row + part.start
        with _reading(self.path):
            found = _dataset(self.path, self.version).get_fragment(fragment.number)
            batches = found.to_batches(
                columns=self.columns.names(),
                offset=part.start,
                limit=part.stop - part.start,
                batch_size=_ROWS_AT_ONCE,
                batch_readahead=1,
                io_buffer_size=_BUFFER_BYTES,
                blob_handling="all_binary",
            )
            for batch in batches:
                yield from to_records(batch, self.columns, source, row, self._folder)
                row += batch.num_rows

    def _folder(self) -> PictureFolder:
        assert self.places is not None
        return PictureFolder(self.places.image_folder or storage.parent(self.path))


def is_lance(path: str) -> bool:
    """Whether `path` is a folder that Lance has written."""
    return any(name.endswith(_MANIFEST_SUFFIX) for name in storage.list_names(storage.join(path, _VERSIONS_FOLDER)))


def _dataset(path: str, version: int | None = None) -> Any:
    try:
        import lance
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path} is a Lance dataset, and the package that reads them is not installed; install it with "
            f"`pip install 'mlim-ray[lance]'`"
        ) from error
    options: dict[str, str] | None = None
    if storage.is_remote(path):
        from mlim_ray.data.s3.client import object_store_options

        options = object_store_options()
    with _reading(path):
        try:
            return lance.dataset(path, version, storage_options=options)
        except ValueError as error:
            # Of a broken manifest, for whose path there is no other way to be told.
            raise OSError(str(error)) from error


def _as_read(schema: pa.Schema) -> pa.Schema:
    """The types that columns have when they are read: blobs are a type of Lance's own until then."""
    kinds = [
        pa.large_binary() if isinstance(kind, pa.BaseExtensionType) and kind.extension_name == _BLOB else kind
        for kind in schema.types
    ]
    return pa.schema(list(zip(schema.names, kinds, strict=True)))


def _fragments(dataset: Any) -> Iterator[_Fragment]:
    row = 0
    for fragment in dataset.get_fragments():
        num_rows = int(fragment.count_rows())
        if num_rows:
            yield _Fragment(int(fragment.fragment_id), row, num_rows)
        row += num_rows


def _manifest(path: str, version: int, num_bytes: int) -> tuple[str, int, str]:
    # Newer datasets count down from the largest number, so that the latest version is listed first.
    names = {f"{number}{_MANIFEST_SUFFIX}" for number in (version, 2**64 - 1 - version)}
    for file in storage.iter_files(storage.join(path, _VERSIONS_FOLDER)):
        if file.relative in names:
            return f"{_VERSIONS_FOLDER}/{file.relative}", num_bytes, file.stamp
    raise ValueError(f"{path} lost version {version} while it was opened; try again")


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn what Lance raises into a ValueError that names the dataset at `path`, or a StorageError where S3 failed."""
    try:
        yield
    except (OSError, RuntimeError, pa.ArrowException, UnicodeDecodeError) as error:
        # Behind it stands a place in the source of Lance, and an endpoint may have a password in it.
        detail = shorten(_USER.sub("//", str(error).partition(", /")[0]))
        if _S3_FAILED in detail:
            raise storage.StorageError(f"cannot read {path}: {detail}; try again once S3 answers") from error
        raise ValueError(f"{path} is damaged or no Lance dataset: {detail}") from error
