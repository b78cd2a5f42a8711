"""The manifest of a prepared set: the one file that says what the set holds."""

from importlib.metadata import version
from typing import Literal

from pydantic import Field, ValidationError

from mlim_ray.config.base import Section
from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage

FORMAT = "mlim_ray prepared set"
VERSION = 3
OLDEST_VERSION = 2
"""Sets of this version have no attributes, and are read as such."""
MANIFEST_FILE = "manifest.json"
_LIBRARIES = ("mlim-ray", "numpy", "pillow", "pyarrow", "tokenizers")

SPLITS = ("train", "val", "test")


class StoredFile(Section):
    """One file of the set."""

    path: str
    """relative to the set"""
    num_bytes: int
    sha256: str


class Shard(StoredFile):
    """One Parquet file of records, in the order of their key hashes."""

    num_records: int
    first_hash: str
    """least key hash, as 16 hexadecimal digits"""
    last_hash: str
    """greatest key hash"""


class Split(Section):
    """One split: its shards in order; row groups are numbered through them."""

    num_records: int
    shards: tuple[Shard, ...]


class Counts(Section):
    """What became of every record: read = accepted + rejected + duplicates."""

    read: int
    accepted: int
    rejected: int
    duplicates: int
    cut_texts: int
    """accepted records whose text was cut"""
    reasons: dict[str, int]
    """rejected and duplicate records by reason"""


class Generation(Section):
    """One run that added records: the first one, an append, or rejected records that came back repaired."""

    kind: Literal["prepare", "append", "requeue"]
    source: str
    """name of the source, without the folders above it"""
    source_sha256: str
    """fingerprint of the raw records, wherever they lie: the sum of their sha256"""
    read: int
    """records read; those of a requeue were read before and count once in the set's counts"""
    accepted: int


class StoredImage(Section):
    """How pictures are stored: RGB, uint8, `size` x `size`."""

    size: int
    encoding: Literal["raw", "png", "jpeg", "webp"]


class StoredText(Section):
    """How texts are stored."""

    max_tokens: int
    """most pieces of a text, [CLS] and [SEP] included"""
    vocab_size: int


class Statistics(Section):
    """What scores are normalised by (contract C5); both over the training split."""

    unigram_entropy: float
    """nats a piece; [CLS] and [SEP] are left out, [UNK] is a piece like any other"""
    pixel_variance: float
    """sum over the channels of the variance of pixel values in [0, 1] around the channel's mean"""


class Generated(Section):
    """Which generated catalogue the set comes from."""

    num_records: int
    seed: int


class Manifest(Section):
    """Everything a reader of a prepared set needs to know."""

    format: Literal["mlim_ray prepared set"] = "mlim_ray prepared set"
    version: int = VERSION
    fingerprint: str
    """hash of what decides the records: raw records, config, columns, tokenizer, format"""
    generations: tuple[Generation, ...]
    config: PrepareConfig
    """without paths of the machine it ran on"""
    keeps_rejected: bool = False
    """whether the quarantine holds the original bytes"""
    columns: dict[str, str]
    """role to column of the source"""
    counts: Counts
    splits: dict[str, Split]
    shard_schema: dict[str, str]
    """column to type of every shard"""
    quarantine: tuple[StoredFile, ...]
    tokenizer: tuple[StoredFile, ...]
    row_group_records: int = Field(ge=1)
    """records of every row group but the last one that a generation adds to a split"""
    image: StoredImage
    text: StoredText
    statistics: Statistics
    """of the first generation, so that scores before and after an append compare (our choice)"""
    generated: Generated | None = None
    libraries: dict[str, str]
    """versions of what the bytes depend on"""

    @property
    def attributes(self) -> tuple[str, ...]:
        """Columns of the source that records keep as texts."""
        return self.config.attribute_columns

    def files(self) -> tuple[StoredFile, ...]:
        """Every file of the set but the manifest itself."""
        shards = [shard for split in self.splits.values() for shard in split.shards]
        return (*shards, *self.tokenizer, *self.quarantine)


def library_versions() -> dict[str, str]:
    """The versions that a manifest records."""
    return {name: version(name) for name in _LIBRARIES}


def read_manifest(folder: str) -> Manifest:
    """The manifest of the set in `folder`.

    Raises ValueError that names the folder if there is no set, and where the manifest is of another format,
    of a newer version, or damaged.
    """
    path = storage.join(folder, MANIFEST_FILE)
    if not storage.exists(path):
        raise ValueError(f"{folder} is no prepared set: it has no {MANIFEST_FILE}; make one with mlim-ray prepare")
    content = storage.read_bytes(path)
    try:
        header = _Header.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(f"{path} is damaged or no manifest of a prepared set: {_first(error)}") from error
    if header.format != FORMAT:
        raise ValueError(f"{path} is of format {header.format!r}; expected {FORMAT!r}")
    if header.version > VERSION:
        raise ValueError(
            f"{path} was written by a newer mlim_ray: it is of version {header.version} and this one reads up to "
            f"{VERSION}; upgrade mlim-ray"
        )
    if header.version < OLDEST_VERSION:
        raise ValueError(
            f"{path} is of version {header.version} and this mlim_ray reads {OLDEST_VERSION} to {VERSION}; prepare the "
            f"set anew with --overwrite"
        )
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(f"{path} is damaged: {_first(error)}") from error


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Make the set in `folder` exist; everything that the manifest names is already there."""
    content = manifest.model_dump_json(indent=1).encode()
    storage.write_bytes_atomically(storage.join(folder, MANIFEST_FILE), content)


def manifest_sha256(folder: str) -> str:
    """The sha256 of the set's manifest: it stands for every byte of the set."""
    return storage.sha256(storage.join(folder, MANIFEST_FILE))


class _Header(Section, extra="ignore"):
    format: str
    version: int


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
