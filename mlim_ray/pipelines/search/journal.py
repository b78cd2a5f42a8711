"""The journal that a search's studies are kept in: a file of the run folder, whole after any crash (contract C6)."""

import contextlib
import os
import tempfile
from collections.abc import Iterator

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from mlim_ray.data import storage
from mlim_ray.pipelines.search.study import STUDY_NAME
from mlim_ray.training.run_folder import RunFolder

_FILE = "study.log"


@contextlib.contextmanager
def open_journal(folder: RunFolder) -> Iterator[str]:
    """The journal's local path, whole to its last line and free of a dead driver's lock.

    Optuna's journal needs a local file. For a search on S3 it is fetched first and written back as the search goes
    (`sync_journal`) and at the end. One driver at a time is held by the run folder's lease.
    """
    if not storage.is_remote(folder.path):
        path = folder.file(_FILE)
        _mend(path)
        yield path
        return
    with tempfile.TemporaryDirectory() as temporary:
        path = os.path.join(temporary, _FILE)
        if storage.exists(folder.file(_FILE)):
            storage.write_bytes_atomically(path, storage.read_bytes(folder.file(_FILE)))
            _mend(path)
        try:
            yield path
        finally:
            sync_journal(folder, path)


def open_study(folder: str, name: str = STUDY_NAME) -> optuna.Study:
    """A study of the search in a local folder, to read.

    Raises:
        ValueError: there is none.
    """
    path = os.path.join(folder, _FILE)
    if not os.path.exists(path):
        raise ValueError(f"{folder} holds no {_FILE}, expected the folder of a search")
    return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(path)))


def sync_journal(folder: RunFolder, journal: str) -> None:
    """Copy the journal of a search on S3 to its folder; nothing to do for a local one."""
    if storage.is_remote(folder.path) and os.path.exists(journal):
        storage.write_bytes_atomically(folder.file(_FILE), storage.read_bytes(journal))


def _mend(path: str) -> None:
    """Cut a torn last line, which the next write would be glued to, and drop a dead driver's lock."""
    if os.path.exists(path):
        with open(path, "rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    if os.path.lexists(path + ".lock"):
        os.unlink(path + ".lock")
