"""The folder that a prepared set is written to: what may be there, and whether the set already is."""

from __future__ import annotations

import hashlib
import json

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.manifest import FORMAT, MANIFEST_FILE, VERSION, Manifest, read_manifest
from mlim_ray.data.prepared import TOKENIZER_FOLDER
from mlim_ray.data.quarantine import QUARANTINE_FOLDER
from mlim_ray.data.shards import SHARDS_FOLDER
from mlim_ray.data.sources import Source
from mlim_ray.data.tokenizer import load_tokenizer

STAGING_FOLDER = ".staging"
"""what lies between the passes; gone when a run ends"""
_OWN_NAMES = frozenset({MANIFEST_FILE, SHARDS_FOLDER, TOKENIZER_FOLDER, QUARANTINE_FOLDER, STAGING_FOLDER})


def fingerprint_of(source: Source, config: PrepareConfig) -> str:
    """Hash of everything that decides what a set holds; equal for an unchanged source and config."""
    tokenizer = None
    if config.tokenizer is not None:
        files = load_tokenizer(storage.absolute(config.tokenizer)).files()
        tokenizer = {name: storage.sha256_of(content) for name, content in files.items()}
    parts = [
        FORMAT,
        VERSION,
        source.identity,
        config.model_dump(mode="json"),
        source.columns.by_role(),
        tokenizer,
    ]
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogateescape")).hexdigest()


def present_set(out: str, fingerprint: str) -> Manifest | None:
    """The manifest of the set in `out`; None if there is none.

    Raises ValueError if the set there has another fingerprint, or its manifest cannot be read.
    """
    if not storage.exists(storage.join(out, MANIFEST_FILE)):
        return None
    manifest = read_manifest(out)
    if manifest.fingerprint != fingerprint:
        raise ValueError(
            f"{out} holds a set prepared from {manifest.source} with another source or config; name another "
            f"folder, or replace it with --overwrite"
        )
    return manifest


def clear_destination(out: str) -> None:
    """Remove a set and what an earlier run left of one from `out`, the manifest first.

    Raises ValueError if anything else lies there: what is not ours is never touched.
    """
    names = storage.list_names(out)
    foreign = sorted(set(names) - _OWN_NAMES)
    if foreign:
        raise ValueError(f"{out} holds other files ({', '.join(foreign[:3])}); expected a new or empty folder")
    storage.remove(storage.join(out, MANIFEST_FILE))
    for name in names:
        if name != MANIFEST_FILE:
            storage.remove_tree(storage.join(out, name))


def check_apart(source: str, out: str) -> None:
    """Raise ValueError if `out` lies inside `source` or around it: writing would change what is read."""
    path = storage.absolute(source) + "/"
    if path.startswith(out + "/") or (out + "/").startswith(path):
        raise ValueError(f"{out} and the source {source} lie inside each other; name a folder beside it")
