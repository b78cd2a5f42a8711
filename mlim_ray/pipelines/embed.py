"""Embeddings of all records of a source, with Ray Data.

Pass 1 cleans slices of the source and shows them to the model in actors. Pass 2 brings the rows into the order of their
keys' hashes, drops duplicates and writes the parts. A run that was killed is continued by the same command, and what is
written in the end is what an undisturbed run writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from mlim_ray.config.embed import EmbedConfig
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.lease import Lease
from mlim_ray.data.result_set import ResultManifest
from mlim_ray.evaluation.embedding import COLUMN_OF
from mlim_ray.evaluation.embedding import embed as embed_records
from mlim_ray.evaluation.showing import SHOWN
from mlim_ray.pipelines.cluster import Cluster
from mlim_ray.pipelines.model_pass import OnProgress
from mlim_ray.pipelines.result_job import Job
from mlim_ray.training.loaded_run import LoadedRun

if TYPE_CHECKING:
    from mlim_ray.data.records import Records


@dataclass(frozen=True)
class ShowSides:
    """Ask the model for the embeddings of the picture, the text, and both."""

    config: EmbedConfig

    def schema(self, width: int) -> pa.Schema:
        """A list of `width` numbers for each."""
        number = pa.float16() if self.config.dtype == "float16" else pa.float32()
        return pa.schema([pa.field(COLUMN_OF[side], pa.list_(number, width), nullable=False) for side in SHOWN])

    def __call__(self, run: LoadedRun, records: Records, rows: pa.Table) -> list[pa.Array]:
        """The embeddings, in the order of the schema."""
        found = embed_records(run.model, records, self.config)
        dtype, width = np.dtype(self.config.dtype), run.model.config.hidden_size
        # Past the end of float16 lies infinity.
        limit = np.finfo(dtype).max
        return [
            pa.FixedSizeListArray.from_arrays(
                pa.array(np.clip(found[side], -limit, limit).astype(dtype).ravel()), width
            )
            for side in SHOWN
        ]


def embed(job: Job, cluster: Cluster, on_progress: OnProgress, config: EmbedConfig) -> ResultManifest:
    """Write the embeddings of all records of a job, made by `embed_job`. Ray is running.

    Raises:
        ValueError: the source cannot be read, or the folder is in use.
        TooManyRejected: too large a share of the records was rejected.
    """
    with Lease(job.folder.path):
        job.folder.open(job.plan)
        try:
            counts = job.show_all(cluster, on_progress, "embed")
            manifest = job.write(counts, as_embeddings, _facts(job.run, config), on_progress)
        except storage.StorageError:
            # The disk or the network failed, not the source: the same command goes on from here.
            raise
        except ValueError:
            job.folder.discard()
            raise
        job.folder.close(manifest)
    return manifest


def embed_job(run: LoadedRun, source: str, out: str, prepare: PrepareConfig, config: EmbedConfig) -> Job:
    """The job of embedding `source` into the folder `out`; starts nothing. Raises ValueError as `Job.of`."""
    return Job.of("mlim_ray embeddings", run, source, out, prepare, ShowSides(config), config)


def as_embeddings(rows: pa.Table) -> pa.Table:
    """The columns of a part, from staged rows."""
    return rows.select(["key", *COLUMN_OF.values()])


def _facts(run: LoadedRun, config: EmbedConfig) -> dict[str, object]:
    shape = run.model.config
    return {
        "weights_sha256": run.sha256,
        "step": run.step,
        "width": shape.hidden_size,
        "image_size": shape.image_size,
        "max_tokens": shape.max_tokens,
        **config.model_dump(mode="json"),
    }
