"""A folder of rows that a command made of the records of a source: Parquet parts, a quarantine, a manifest written
last (contract C7). Embeddings and filled attributes are kept so."""

from __future__ import annotations

import json
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from mlim_ray.config.base import Section
from mlim_ray.data import storage
from mlim_ray.data.contact import PROBE_NAME
from mlim_ray.data.manifest import MANIFEST_FILE, StoredFile
from mlim_ray.data.quarantine import QUARANTINE_FOLDER as QUARANTINE_FOLDER

PARTS_FOLDER = "parts"
STAGING_FOLDER = ".staging"
"""what lies between the passes; gone when a run ends well, taken up again when it was killed"""
Format = Literal["mlim_ray embeddings", "mlim_ray filled attributes"]
VERSION = 1
_PLAN_FILE = "plan.json"
_FOLDERS = (PARTS_FOLDER, QUARANTINE_FOLDER)
_ROW_GROUP_RECORDS = 8_192


class Part(StoredFile):
    """One Parquet file of rows."""

    num_records: int


class ResultCounts(Section):
    """What became of every record: read = accepted + rejected + duplicates."""

    read: int
    accepted: int
    rejected: int
    duplicates: int
    reasons: dict[str, int]
    """rejected and duplicate records by reason"""


class ResultManifest(Section):
    """The one file that says what the folder holds."""

    format: Format
    version: int = VERSION
    plan: str
    """hash of what decides the rows: source, config, weights, library versions"""
    source: str
    """name of the source, without the folders above it"""
    columns: dict[str, str]
    """role to column of the source"""
    counts: ResultCounts
    part_schema: dict[str, str]
    """column to type of every part"""
    parts: tuple[Part, ...]
    """in the order of the hashes of the records' keys"""
    quarantine: tuple[StoredFile, ...]
    facts: dict[str, Any]
    """the model, the config, and what else the command has to say"""
    libraries: dict[str, str]


class ResultFolder:
    """The folder `path` of a command, local or in S3, before, while and after it is written.

    Args:
        path: absolute.
        kind: the manifest's format.
        other_files: names beside parts and quarantine that the command writes.
    """

    def __init__(self, path: str, kind: str, other_files: tuple[str, ...] = ()) -> None:
        self.path = path
        self.staging = storage.join(path, STAGING_FOLDER)
        self._kind = kind
        self._other_files = other_files

    def refuse_foreign(self) -> None:
        """Raise ValueError if anything is here that no command leaves: what is not ours is never touched."""
        own = {MANIFEST_FILE, STAGING_FOLDER, "lease.json", PROBE_NAME, *_FOLDERS, *self._other_files}
        foreign = sorted(set(storage.list_names(self.path)) - own)
        if foreign:
            raise ValueError(
                f"{self.path} holds other files ({', '.join(foreign[:3])}); expected a new or empty folder"
            )

    def present(self, plan: str) -> ResultManifest | None:
        """What the same command finished here, swept of what it no longer needs; None if there is nothing.

        Raises:
            ValueError: something else is here.
        """
        self.refuse_foreign()
        if not storage.exists(storage.join(self.path, MANIFEST_FILE)):
            return None
        manifest = read_result_manifest(self.path)
        if manifest.format != self._kind:
            raise ValueError(f"{self.path} holds {manifest.format}; name another folder")
        if manifest.plan == plan:
            # It may have been killed as its last act.
            self.discard()
            return manifest
        raise ValueError(
            f"{self.path} holds what another model, source or config gave ({manifest.source}); name another folder, or "
            "replace it with --overwrite"
        )

    def open(self, plan: str) -> bool:
        """Make the folder ready, without what others left; whether an earlier start of the same plan is continued."""
        storage.abort_unfinished_uploads(self.path)
        path = storage.join(self.staging, _PLAN_FILE)
        names = storage.list_names(self.path)
        planned = json.loads(storage.read_bytes(path))["plan"] if storage.exists(path) else None
        if planned == plan and MANIFEST_FILE not in names:
            return True
        storage.remove(storage.join(self.path, MANIFEST_FILE))
        for name in self._other_files:
            storage.remove(storage.join(self.path, name))
        for name in (*_FOLDERS, STAGING_FOLDER):
            storage.remove_tree(storage.join(self.path, name))
        storage.write_bytes_atomically(path, json.dumps({"plan": plan}).encode())
        return False

    def close(self, manifest: ResultManifest) -> None:
        """Write the manifest, and remove all that it does not name."""
        kept = {file.path for file in (*manifest.parts, *manifest.quarantine)}
        for folder in _FOLDERS:
            for name in storage.list_names(storage.join(self.path, folder)):
                if f"{folder}/{name}" not in kept:
                    storage.remove(storage.join(self.path, folder, name))
        content = manifest.model_dump_json(indent=1).encode()
        storage.write_bytes_atomically(storage.join(self.path, MANIFEST_FILE), content)
        self.discard()

    def discard(self) -> None:
        """Remove what lies between the passes."""
        storage.remove_tree(self.staging)


def write_part(out: str, number: int, rows: pa.Table) -> Part:
    """Write rows as part `number` of the folder `out`."""
    path = f"{PARTS_FOLDER}/part-{number:05d}.parquet"
    sink = pa.BufferOutputStream()
    # Numbers of a model hardly shrink, and no two are alike.
    repeated = [field.name for field in rows.schema if pa.types.is_string(field.type) and field.name != "key"]
    pq.write_table(
        rows,
        sink,
        row_group_size=_ROW_GROUP_RECORDS,
        compression="none" if any(pa.types.is_nested(kind) for kind in rows.schema.types) else "zstd",
        use_dictionary=repeated,
        write_statistics=False,
        write_page_checksum=True,
    )
    content = memoryview(sink.getvalue())
    storage.write_bytes_atomically(storage.join(out, path), content)
    return Part(path=path, num_records=len(rows), num_bytes=len(content), sha256=storage.sha256_of(content))


def is_result_set(folder: str) -> bool:
    """Whether a command has finished a folder of rows there, and not a prepared set or records."""
    path = storage.join(folder, MANIFEST_FILE)
    if not storage.exists(path):
        return False
    try:
        content = json.loads(storage.read_bytes(path))
    except ValueError:
        return False
    return isinstance(content, dict) and content.get("format") in get_args(Format)


def read_result_manifest(folder: str) -> ResultManifest:
    """The manifest of the folder. Raises ValueError that names it if there is none, or it is of something else."""
    path = storage.join(folder, MANIFEST_FILE)
    if not storage.exists(path):
        raise ValueError(f"{folder} has no {MANIFEST_FILE}: it was not finished; start the same command again")
    try:
        return ResultManifest.model_validate_json(storage.read_bytes(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "content"
        raise ValueError(f"{path} is damaged or of something else: {place}: {first['msg']}") from error
