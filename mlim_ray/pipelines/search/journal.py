"""The journal that a search's studies are kept in: a file of the run folder, whole after any crash (contract C6)."""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator

from mlim_ray.data import storage
from mlim_ray.pipelines.search.journal_copy import JournalCopy
from mlim_ray.reporting.progress import say
from mlim_ray.training.run_folder import RunFolder

JOURNAL = "study.log"
_RECORD = b'{"op_code"'
"""how each of Optuna's records begins"""


@contextlib.contextmanager
def open_journal(folder: RunFolder, name: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """The journal's local path, whole to its last line and free of a dead driver's lock; and what to call when it grew.

    Optuna's journal needs a local file. For a search on S3 it lies on this machine's disk while the search runs, is
    copied to the run folder as it grows, and once more at the end. Where a driver died before its last lines were
    copied, the next one on its machine finds them. One driver at a time is held by the run folder's lease.

    Args:
        folder: of the search.
        name: of its study; no other search has it.

    Raises:
        ValueError: the run folder has lost its journal, or the last copy could not be made.
    """
    if not storage.is_remote(folder.path):
        path = folder.file(JOURNAL)
        if not os.path.exists(path) and storage.exists(folder.file("trials")):
            raise ValueError(
                f"{path} is gone, and with it what the trials in {folder.path} found; restore it, or start the search "
                "anew with --overwrite"
            )
        mend_journal(path)
        yield path, lambda: None
        return
    path = os.path.join(_own_folder(name), JOURNAL)
    mend_journal(path)
    take_longer(path, folder.file(JOURNAL))
    with JournalCopy(path, folder.file(JOURNAL)) as copy:
        yield path, copy.due
    # The run folder has all of it.
    storage.remove_tree(os.path.dirname(path))


def mend_journal(path: str) -> None:
    """Make a journal one that can be read and written, whatever its last driver died in.

    A torn last line is cut, for the next write would be glued to it; of a line that was glued to a torn one, the whole
    record is kept. A dead driver's lock is dropped.

    Raises:
        ValueError: a line is damaged in another way.
    """
    if os.path.lexists(path + ".lock"):
        os.unlink(path + ".lock")
    if not os.path.exists(path):
        return
    content = storage.read_bytes(path)
    lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
    mended = b"".join(_mended(line, number, path) for number, line in enumerate(lines, 1))
    if mended != content:
        storage.write_bytes_atomically(path, mended)


def _mended(line: bytes, number: int, path: str) -> bytes:
    start = 0
    while start >= 0:
        try:
            json.loads(line[start:])
        except ValueError:
            start = line.find(_RECORD, start + 1)
        else:
            return line[start:]
    raise ValueError(f"{path}: line {number} is damaged; restore the file, or start the search anew with --overwrite")


def take_longer(path: str, remote: str) -> None:
    """Of this machine's journal and the run folder's copy, leave the longer one at `path`.

    If they are not two states of one journal, another machine has gone on with the search: then its copy counts.
    """
    try:
        copied = storage.read_bytes(remote)
    except storage.MissingPathError:
        return
    here = storage.read_bytes(path) if os.path.exists(path) else b""
    if not here.startswith(copied):
        storage.write_bytes_atomically(path, copied)
        mend_journal(path)
    elif here != copied:
        num_lines = here[len(copied) :].count(b"\n")
        say(f"the journal on this machine is {num_lines} lines ahead of {remote}: it is taken")


def _own_folder(name: str) -> str:
    """Where this machine keeps the journal of a search on S3; it should outlive a restart of the machine."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    folder = os.path.join(home, "mlim-ray", name)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError:
        # Some containers have no home that can be written to.
        folder = os.path.join(tempfile.gettempdir(), f"mlim-ray-{os.getuid()}", name)
        os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder
