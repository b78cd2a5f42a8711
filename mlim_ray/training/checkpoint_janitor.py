"""Removes what crashes left among a run's checkpoints: never a committed one, never a file that is not ours.

Ours are, below the folder of all checkpoints: the two files of a step's folder, and temporary files of those and of
the manifest. A folder that holds anything else stays, and so does what lies behind a link.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from mlim_ray.data import storage
from mlim_ray.training.checkpoint_manifest import COPY_FILE, MANIFEST_FILE, STEP_FILE, STEP_NAME, STEP_PATH

_MANIFEST = f"(?:{re.escape(MANIFEST_FILE)}|{re.escape(COPY_FILE)})"
_TEMPORARY = r"\.[0-9a-f]{32}\.tmp"
_UNFINISHED = re.compile(rf"(?:{STEP_NAME}/\.{STEP_FILE}|\.{_MANIFEST}){_TEMPORARY}")


def remove_leftovers(folder: str, committed: Collection[int]) -> int:
    """Remove what belongs to no checkpoint of the steps in `committed`; gives the number of files.

    Only the owner of the run may call it, while nothing is written below `folder`.
    """
    if not storage.is_folder(folder):
        return storage.abort_unfinished_uploads(folder)
    leftovers = [file for file in storage.walk_files(folder) if _is_leftover(file.relative, committed)]
    for file in leftovers:
        storage.remove(file.path)
    # In S3 a folder ends with its last file.
    for name in [] if storage.is_remote(folder) else storage.list_names(folder):
        if _is_orphan(re.fullmatch(STEP_NAME, name), committed):
            storage.remove_empty_folder(storage.join(folder, name))
    return len(leftovers) + storage.abort_unfinished_uploads(folder)


def _is_leftover(relative: str, committed: Collection[int]) -> bool:
    return bool(_UNFINISHED.fullmatch(relative)) or _is_orphan(STEP_PATH.fullmatch(relative), committed)


def _is_orphan(match: re.Match[str] | None, committed: Collection[int]) -> bool:
    return match is not None and int(match["step"]) not in committed
