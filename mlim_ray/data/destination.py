"""The folder that a prepared set is written to: what may be there, what an unfinished run left, what is swept away."""

from __future__ import annotations

import json

from mlim_ray.data import storage
from mlim_ray.data.contact import PROBE_NAME
from mlim_ray.data.manifest import MANIFEST_FILE, Manifest, read_manifest
from mlim_ray.data.origin import ORIGIN_FOLDER, Origin, origin_names, read_origin
from mlim_ray.data.prepared import TOKENIZER_FOLDER
from mlim_ray.data.quarantine import QUARANTINE_FOLDER
from mlim_ray.data.shards import SHARDS_FOLDER

STAGING_FOLDER = ".staging"
"""what lies between the passes; gone when a run ends well, taken up again when it was killed"""
_PLAN_FILE = "plan.json"
_SET_FOLDERS = (SHARDS_FOLDER, TOKENIZER_FOLDER, QUARANTINE_FOLDER, ORIGIN_FOLDER)
_LEASE_FILE = "lease.json"
_OWN_NAMES = frozenset({MANIFEST_FILE, STAGING_FOLDER, _LEASE_FILE, PROBE_NAME, *_SET_FOLDERS})


def present_set(out: str, origin: Origin) -> Manifest | None:
    """The manifest of the set in `out`, made from all files of `origin` under its rules; None if there is none.

    Raises ValueError if a set of something else is there, or its manifest cannot be read.
    """
    if not storage.exists(storage.join(out, MANIFEST_FILE)):
        return None
    manifest = read_manifest(out)
    before = read_origin(out, len(manifest.generations))
    if (before.rules, before.pictures, before.files) == (origin.rules, origin.pictures, origin.files):
        return manifest
    if before.rules != origin.rules:
        difference = "with another config"
        mend = "name another folder, or replace it with --overwrite"
    elif len(before.files) == len(origin.files) or not origin.holds(before):
        difference = f"from {manifest.generations[0].source} with other files than the source has now"
        mend = "name another folder, or replace it with --overwrite"
    else:
        num_new = len(origin.files) - len(before.files)
        difference = f"before the source had {num_new} of its files"
        mend = "add them with --append, or replace the set with --overwrite"
    raise ValueError(f"{out} holds a set prepared {difference}; {mend}")


def refuse_foreign(out: str) -> None:
    """Raise ValueError if `out` holds anything that is not of a set: what is not ours is never touched."""
    foreign = sorted(set(storage.list_names(out)) - _OWN_NAMES)
    if foreign:
        raise ValueError(f"{out} holds other files ({', '.join(foreign[:3])}); expected a new or empty folder")


def open_destination(out: str, plan: str, *, keep_set: bool = False) -> bool:
    """Make `out` ready for the run whose hash is `plan`; whether an earlier start of the same run is continued.

    What another unfinished run left is removed, and so is a whole set unless `keep_set`.
    """
    # The owner of the folder is alone there, so an upload that is not finished is nobody's.
    storage.abort_unfinished_uploads(out)
    names = storage.list_names(out)
    staging = storage.join(out, STAGING_FOLDER)
    if _planned(staging) == plan and (keep_set or MANIFEST_FILE not in names):
        return True
    if not keep_set:
        storage.remove(storage.join(out, MANIFEST_FILE))
        for name in names:
            if name in _SET_FOLDERS:
                storage.remove_tree(storage.join(out, name))
    storage.remove_tree(staging)
    storage.write_bytes_atomically(storage.join(staging, _PLAN_FILE), json.dumps({"plan": plan}).encode())
    return False


def close_destination(out: str, manifest: Manifest) -> None:
    """Remove all that the finished set's manifest does not name: leftovers of killed tasks, replaced quarantine."""
    storage.remove_tree(storage.join(out, STAGING_FOLDER))
    kept = {file.path for file in manifest.files()}
    kept |= {f"{ORIGIN_FOLDER}/{name}" for name in origin_names(len(manifest.generations))}
    for folder in _SET_FOLDERS:
        for name in storage.list_names(storage.join(out, folder)):
            if f"{folder}/{name}" not in kept:
                storage.remove(storage.join(out, folder, name))


def check_apart(source: str, out: str) -> None:
    """Raise ValueError if `out` lies inside `source` or around it: writing would change what is read."""
    path = storage.absolute(source) + "/"
    if path.startswith(out + "/") or (out + "/").startswith(path):
        raise ValueError(f"{out} and the source {source} lie inside each other; name a folder beside it")


def _planned(staging: str) -> str | None:
    path = storage.join(staging, _PLAN_FILE)
    return json.loads(storage.read_bytes(path)).get("plan") if storage.exists(path) else None
