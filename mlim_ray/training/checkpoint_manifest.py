"""The manifest of a run's checkpoints: the file that makes them exist, and its copy.

Both hold the same and are written after the files that they name, the manifest first. Each carries the sha256 of what
it says, so that no damage to it can name a wrong file: a damaged or missing manifest is told, and its copy is taken.
A folder gets both before its first checkpoint, so that checkpoints without them are known to have lost them.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from pydantic import Field, ValidationError

from mlim_ray.config.base import Section
from mlim_ray.data import storage

FileName = Literal["model.safetensors", "trainer.pt"]
MODEL_FILE: FileName = "model.safetensors"
TRAINER_FILE: FileName = "trainer.pt"
MANIFEST_FILE, COPY_FILE = "manifest.json", "manifest.copy.json"
STEP_NAME = r"step-(?P<step>[0-9]{8}|[1-9][0-9]{8,})"
"""what `step_name` gives, and no other way to write a number"""
STEP_FILE = f"(?:{re.escape(MODEL_FILE)}|{re.escape(TRAINER_FILE)})"
"""a file in the folder of a step"""
STEP_PATH = re.compile(f"{STEP_NAME}/{STEP_FILE}")
VERSION = 2

Reason = Literal["last", "best", "every"]


class CheckpointFile(Section):
    """One file of a checkpoint."""

    num_bytes: int = Field(ge=0)
    sha256: str


class CheckpointEntry(Section):
    """What the manifest says of one checkpoint."""

    step: int = Field(ge=0)
    score: float | None = None
    """the loss that the best is chosen by, lower is better; None where none was logged yet"""
    kept: tuple[Reason, ...] = ()
    """why it is kept: among the last ones, the best by score, one of every so many steps"""
    files: dict[FileName, CheckpointFile]


class Listing(NamedTuple):
    """The checkpoints that exist, oldest first, and why the manifest itself was refused, if it was."""

    entries: tuple[CheckpointEntry, ...]
    refused: str | None


def step_name(step: int) -> str:
    """The folder of a checkpoint, below that of all checkpoints."""
    return f"step-{step:08d}"


def write_manifest(folder: str, entries: tuple[CheckpointEntry, ...]) -> None:
    """Make the checkpoints of `entries` exist, and no others; their files are already there."""
    content = _encode(entries)
    for name in (MANIFEST_FILE, COPY_FILE):
        storage.write_bytes_atomically(storage.join(folder, name), content)


def mend_manifest(folder: str) -> None:
    """Write the manifest and its copy where they are not what `read_manifest` gives; raises as it does."""
    content = _encode(read_manifest(folder).entries)
    for name in (MANIFEST_FILE, COPY_FILE):
        path = storage.join(folder, name)
        if _read(path) != content:
            storage.write_bytes_atomically(path, content)


def read_manifest(folder: str) -> Listing:
    """What exists in `folder`; nothing where nothing was ever written.

    Raises ValueError if there are checkpoints, and neither the manifest nor its copy is whole.
    """
    problems = []
    found_any = False
    for name in (MANIFEST_FILE, COPY_FILE):
        path = storage.join(folder, name)
        content = _read(path)
        if content is None:
            problems.append(f"{path} is missing")
            continue
        found_any = True
        try:
            return Listing(_decode(content), problems[0] if problems else None)
        except ValueError as error:
            problems.append(f"{path} {error}")
    if not found_any and not _holds_checkpoints(folder):
        return Listing((), None)
    raise ValueError(
        f"{'; '.join(problems)}; expected the list of checkpoints: "
        "restore one of the two files from a copy, or start anew with --overwrite"
    )


class _Header(Section, extra="ignore"):
    version: int = 1


class _Manifest(Section):
    version: int = 1
    sha256: str = ""
    """of `checkpoints`, as `_digest` takes it"""
    checkpoints: tuple[CheckpointEntry, ...]


def _encode(entries: tuple[CheckpointEntry, ...]) -> bytes:
    manifest = _Manifest(version=VERSION, sha256=_digest(entries), checkpoints=entries)
    return manifest.model_dump_json(indent=1).encode()


def _decode(content: bytes) -> tuple[CheckpointEntry, ...]:
    """Raises ValueError for anything but what `_encode` gives, or what the first version wrote."""
    try:
        version = _Header.model_validate_json(content).version
        if version > VERSION:
            raise ValueError(f"is of version {version}, this mlim-ray reads up to {VERSION}: it is newer, or damaged")
        manifest = _Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"is damaged ({'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']})") from error
    entries = manifest.checkpoints
    # The first version had no checksum of its own.
    is_first_version = manifest.model_fields_set == {"checkpoints"}
    if not is_first_version and _encode(entries) != content:
        raise ValueError("is damaged (it has not the sha256 that was written)")
    if any(entry.files.keys() != {MODEL_FILE, TRAINER_FILE} for entry in entries):
        raise ValueError(f"is damaged (a checkpoint has other files than {MODEL_FILE} and {TRAINER_FILE})")
    return entries


def _digest(entries: tuple[CheckpointEntry, ...]) -> str:
    return storage.sha256_of("\n".join(entry.model_dump_json() for entry in entries).encode())


def _holds_checkpoints(folder: str) -> bool:
    if not storage.is_folder(folder):
        return False
    return any(STEP_PATH.fullmatch(file.relative) for file in storage.walk_files(folder))


def _read(path: str) -> bytes | None:
    try:
        return storage.read_bytes(path)
    except storage.MissingPathError:
        return None
