"""From what a person names to a source."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlim_ray.config.base import AUTO
from mlim_ray.config.prepare import SOURCES, PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.manifest import MANIFEST_FILE
from mlim_ray.data.sources.choosing import choose_files
from mlim_ray.data.sources.csv_files import CsvSource
from mlim_ray.data.sources.forms import Form
from mlim_ray.data.sources.generated import PREFIX, GeneratedSource
from mlim_ray.data.sources.jsonl_files import JsonlSource
from mlim_ray.data.sources.label_folders import LabelFolderSource
from mlim_ray.data.sources.listing import Listing
from mlim_ray.data.sources.parquet_files import ParquetSource
from mlim_ray.data.sources.prepared_files import PreparedSource
from mlim_ray.data.sources.source import Source
from mlim_ray.data.sources.webdataset import WebDatasetSource


def open_source(name: str, config: PrepareConfig) -> Source:
    """The source called `name`: one of SOURCES, told apart by its content unless `config` names its form.

    `config` is resolved (no auto). Raises ValueError that names the path for a missing path, an empty
    folder, a damaged file, a mixture of forms, and a table without a picture or text column.
    """
    if name.startswith(PREFIX):
        _refuse_format(name, "a generated catalogue", config)
        return GeneratedSource.open(name, config)
    path = storage.absolute(name)
    if not storage.exists(path):
        raise storage.MissingPathError(f"{name} does not exist; expected {SOURCES}")
    if storage.exists(storage.join(path, MANIFEST_FILE)):
        _refuse_format(name, "a prepared set", config)
        return PreparedSource.open(name, config)
    listing = Listing.of(path)
    if listing.hidden().all():
        raise ValueError(f"{name} holds no files; expected {SOURCES}")
    _refuse_linked_folders(name, listing)
    form, chosen = choose_files(name, listing, config.format)
    source = _open(form, name, listing, chosen, config)
    if not source.slices():
        raise ValueError(f"{name} holds no records; expected at least one row")
    return source


def _open(form: Form, name: str, listing: Listing, chosen: NDArray[np.bool_], config: PrepareConfig) -> Source:
    if form is Form.FOLDER:
        return LabelFolderSource.open(name, listing, chosen, config)
    files = listing.files(np.flatnonzero(chosen))
    if form is Form.PARQUET:
        return ParquetSource.open(name, files, listing, config)
    if form is Form.CSV:
        return CsvSource.open(name, files, listing, config)
    if form is Form.JSONL:
        return JsonlSource.open(name, files, listing, config)
    return WebDatasetSource.open(name, files, config)


def _refuse_format(name: str, kind: str, config: PrepareConfig) -> None:
    if config.format != AUTO:
        raise ValueError(f"--format {config.format} given for {name}, which is {kind}; leave it out")


def _refuse_linked_folders(name: str, listing: Listing) -> None:
    # Left out silently, their records would be lost; followed, they may lead anywhere or in circles.
    linked = pc.index(listing.stamps_F, storage.LINKED_FOLDER.encode()).as_py()
    if linked >= 0:
        raise ValueError(
            f"{name} holds a link to a folder, {listing.relative(linked)}, which is not followed; name the folder "
            f"that it leads to, or one file of records"
        )


def resolve_prepare_config(config: PrepareConfig, image_size: int) -> PrepareConfig:
    """`config` without auto: pictures of `image_size` pixels, stored raw up to 64 pixels and as JPEG above.

    Up to 64 pixels a raw picture (12 KiB) is read faster than a JPEG is decoded; above, the disk decides.
    The form of the source may stay auto: it is told whenever a source is opened.
    """
    size = image_size if config.image_size == "auto" else config.image_size
    encoding = ("raw" if size <= 64 else "jpeg") if config.image_encoding == "auto" else config.image_encoding
    return config.model_copy(update={"image_size": size, "image_encoding": encoding})
