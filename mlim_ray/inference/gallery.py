"""Embedded records among which the nearest to a picture or a title are looked for.

Legend: R records, D width, H, W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mlim_ray.config.embed import EmbedConfig
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.cleaning import CleaningRules
from mlim_ray.data.inspection.sample import plan_sample
from mlim_ray.data.model_rows import SCHEMA, read_rows, to_records
from mlim_ray.data.parquet import open_parquet, reading
from mlim_ray.data.result_set import ResultManifest, is_result_set, read_result_manifest
from mlim_ray.data.sources import open_source
from mlim_ray.data.sources.generated import PREFIX as GENERATED
from mlim_ray.evaluation.embedding import COLUMN_OF, Embeddings, embed
from mlim_ray.evaluation.showing import Shown
from mlim_ray.inference.loaded_model import LoadedModel
from mlim_ray.training.init_from import weights_sha256

FROM_SOURCE, FROM_EMBEDDINGS = 1_000, 100_000
"""records that are looked through by default: those of a source have to be embedded first"""
_TINY = 1e-12


@dataclass(frozen=True)
class Neighbour:
    """A record of the gallery."""

    key: str
    text: str | None
    """None where the gallery keeps none"""
    pixels_HW3: NDArray[np.uint8] | None
    """as the model sees the picture; None where the gallery keeps none"""
    similarity: float
    """cosine, from -1 to 1"""


@dataclass(frozen=True)
class Gallery:
    """Records with their embeddings by what was shown of them."""

    name: str
    keys: Sequence[str]
    embeddings: Embeddings
    """each [R, D]"""
    are_unit: bool = False
    """whether each embedding was brought to length 1"""
    texts: Sequence[str] | None = None
    pixels_RHW3: NDArray[np.uint8] | None = None

    def nearest(self, vector_D: NDArray[np.float32], shown: Shown, num_nearest: int) -> list[Neighbour]:
        """The records whose embedding of what is `shown` is nearest, the nearest first.

        By the cosine of what is left once the mean of all records is taken away (our choice): bare states share an
        offset that is larger than what tells records apart.
        """
        states_RD = self.embeddings[shown].astype(np.float32)
        mean_D = states_RD.mean(0)
        asked_D = vector_D / max(float(np.linalg.norm(vector_D)), _TINY) if self.are_unit else vector_D
        others_RD, own_D = states_RD - mean_D, asked_D - mean_D
        lengths_R = np.linalg.norm(others_RD, axis=1) * np.linalg.norm(own_D)
        similarity_R = others_RD @ own_D / np.maximum(lengths_R, _TINY)
        return [
            Neighbour(
                self.keys[i],
                None if self.texts is None else self.texts[i],
                None if self.pixels_RHW3 is None else self.pixels_RHW3[i],
                float(similarity_R[i]),
            )
            for i in np.argsort(-similarity_R, kind="stable")[:num_nearest].tolist()
        ]


def open_gallery(
    path: str,
    model: LoadedModel,
    config: PrepareConfig,
    num_records: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Gallery:
    """What `mlim-ray embed` wrote, or a sample of a source that is embedded here.

    Args:
        path: the folder of embeddings, a source of records, or a prepared set.
        model: that the questions are embedded with.
        config: how the records of a source are cleaned; picture size and text length are the model's.
        num_records: most records; by default as many as FROM_SOURCE and FROM_EMBEDDINGS say.
        on_progress: told how many records of how many are read.

    Raises:
        ValueError: there is nothing of the kind at `path`, it was embedded with other weights, or no record of it can
            be used.
    """
    if not path.startswith(GENERATED) and is_result_set(storage.absolute(path)):
        return _read(path, storage.absolute(path), model, num_records or FROM_EMBEDDINGS)
    return _embed(path, model, config, num_records or FROM_SOURCE, on_progress or _unheard)


def _unheard(done: int, total: int) -> None:
    """For who does not ask for progress."""


def _read(path: str, folder: str, model: LoadedModel, num_records: int) -> Gallery:
    manifest: ResultManifest = read_result_manifest(folder)
    if manifest.format != "mlim_ray embeddings":
        raise ValueError(f"{path} holds {manifest.format}; expected what mlim-ray embed writes, or records")
    if manifest.facts["weights_sha256"] != weights_sha256(model.model.state_dict()):
        raise ValueError(
            f"{path} was embedded with other weights than those of the model; embed it again with this run, or name "
            "the records themselves"
        )
    tables: list[pa.Table] = []
    left = num_records
    for part in manifest.parts:
        if left <= 0:
            break
        file = storage.join(folder, part.path)
        with reading(file), open_parquet(file) as opened:
            tables.append(_first_rows(opened, left))
        left -= len(tables[-1])
    if not tables:
        raise ValueError(f"{path} holds no embeddings; name records, or another folder")
    table = pa.concat_tables(tables)
    width = model.model.config.hidden_size
    embeddings: Embeddings = {
        shown: np.asarray(table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)).reshape(-1, width)
        for shown, column in COLUMN_OF.items()
    }
    return Gallery(path, table["key"].to_pylist(), embeddings, are_unit=bool(manifest.facts["normalise"]))


def _first_rows(opened: pq.ParquetFile, num_rows: int) -> pa.Table:
    groups, found = [], 0
    for group in range(opened.num_row_groups):
        if found >= num_rows:
            break
        groups.append(group)
        found += opened.metadata.row_group(group).num_rows
    return opened.read_row_groups(groups, use_threads=False).slice(0, num_rows)


def _embed(
    path: str, model: LoadedModel, config: PrepareConfig, num_records: int, on_progress: Callable[[int, int], None]
) -> Gallery:
    """Records from evenly spaced places of a source; of several with one key the first."""
    shape = model.model.config
    config = config.model_copy(
        update={"image_size": shape.image_size, "image_encoding": "raw", "max_tokens": shape.max_tokens}
    )
    source = open_source(path, config)
    rules = CleaningRules.of(config, source.columns.split is not None)
    sample = plan_sample(source.slices(), num_records, 0.0, is_remote=storage.is_remote(path))
    total = sum(part.stop - part.start for part in sample)
    tables, done = [SCHEMA.empty_table()], 0
    for number, part in enumerate(sample):
        for rows in read_rows(source, part, number, rules):
            tables.append(rows.table)
            done += rows.num_read
            on_progress(done, total)
    table = pa.concat_tables(tables)
    _, first = np.unique(table["key_hash"].to_numpy(), return_index=True)
    table = table.take(pa.array(np.sort(first)[:num_records]))
    if len(table) == 0:
        raise ValueError(f"{path}: no record of the sample can be used; mlim-ray inspect tells why")
    records = to_records(table, model.preprocessor.tokenizer, shape.image_size, shape.max_tokens)
    embeddings = embed(model.model, records, EmbedConfig())
    return Gallery(path, table["key"].to_pylist(), embeddings, False, table["text"].to_pylist(), records.pixels_RHW3)
