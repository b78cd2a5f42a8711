"""From what a person names to a source."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
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
from mlim_ray.data.sources.label_folders import CAPTION_SUFFIX, LabelFolderSource
from mlim_ray.data.sources.lance_dataset import LanceSource, is_lance
from mlim_ray.data.sources.listing import FILES_SCHEMA, Listing
from mlim_ray.data.sources.parquet_files import ParquetSource
from mlim_ray.data.sources.prepared_files import PreparedSource
from mlim_ray.data.sources.source import Source
from mlim_ray.data.sources.webdataset import WebDatasetSource


class Opened(NamedTuple):
    """A source, and the files that its records come from."""

    source: Source
    files: pa.Table
    """of FILES_SCHEMA: compact, for there may be millions; captions beside pictures are among them"""


def open_source(name: str, config: PrepareConfig) -> Source:
    """The source called `name`: one of SOURCES, told apart by its content unless `config` names its form.

    `config` is resolved (no auto). Raises ValueError that names the path for a missing path, an empty
    folder, a damaged file, a mixture of forms, and a table without a picture or text column.
    """
    return open_with_files(name, config).source


def open_with_files(name: str, config: PrepareConfig) -> Opened:
    """The source called `name`, and its files; raises as `open_source`."""
    opened = _open_new(name, config, None)
    assert opened is not None, "only what is known can leave nothing"
    return opened


def open_new_files(name: str, config: PrepareConfig, known: pa.Table) -> Opened | None:
    """The source called `name` without the files that are `known` (a table of FILES_SCHEMA); None if none are new.

    Raises ValueError as `open_source`, for a source that has no files, and where a known file changed.
    """
    return _open_new(name, config, known)


def _open_new(name: str, config: PrepareConfig, known: pa.Table | None) -> Opened | None:
    if name.startswith(PREFIX):
        _refuse_format(name, "a generated catalogue", config)
        return _without_files(name, GeneratedSource.open(name, config), known)
    path = storage.absolute(name)
    if not storage.exists(path):
        raise storage.MissingPathError(f"{name} does not exist; expected {SOURCES}")
    if storage.exists(storage.join(path, MANIFEST_FILE)):
        _refuse_format(name, "a prepared set", config)
        return _without_files(name, PreparedSource.open(name, config), known)
    if is_lance(path):
        _refuse_format(name, "a Lance dataset", config)
        return _without_files(name, LanceSource.open(name, path, config), known)
    listing = Listing.of(path)
    if listing.hidden().all():
        raise ValueError(f"{name} holds no files; expected {SOURCES}")
    _refuse_linked_folders(name, listing)
    form, chosen = choose_files(name, listing, config.format)
    with_captions = chosen
    if form is Form.FOLDER:
        with_captions = chosen | (listing.of_suffix(CAPTION_SUFFIX.__eq__) & ~listing.hidden())
    if known is not None:
        is_new = ~_is_known(name, listing, with_captions, known)
        chosen, with_captions = chosen & is_new, with_captions & is_new
        if not chosen.any():
            return None
    source = _open(form, name, listing, chosen, config)
    if not source.slices():
        raise ValueError(f"{name} holds no records; expected at least one row")
    return Opened(source, listing.take(with_captions).table())


def _without_files(name: str, source: Source, known: pa.Table | None) -> Opened:
    if known is not None:
        raise ValueError(f"{name} has no files to append; expected files of records")
    files, num_bytes, stamps = zip(*source.identity, strict=True)
    return Opened(source, pa.table([files, num_bytes, stamps], schema=FILES_SCHEMA))


def _is_known(name: str, listing: Listing, chosen: NDArray[np.bool_], known: pa.Table) -> NDArray[np.bool_]:
    """For each file whether it was read before. Raises ValueError for a chosen one that changed since."""
    found = listing.table()
    places = pc.index_in(found["file"], value_set=known["file"])
    is_known: NDArray[np.bool_] = places.is_valid().to_numpy()
    before = known.take(places.drop_null())
    now = found.filter(pa.array(is_known))
    same = pc.and_(*(pc.equal(now[column], before[column]) for column in ("num_bytes", "stamp"))).to_numpy()
    changed = np.flatnonzero(is_known)[~same & chosen[is_known]]
    if len(changed):
        raise ValueError(
            f"{listing.relative(int(changed[0]))} of {name} changed since the set was made from it; append takes new "
            f"files only: give it another name, or prepare the set anew with --overwrite"
        )
    return is_known


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
