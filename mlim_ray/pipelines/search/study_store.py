"""Where the studies of a search are kept, and what they are called there."""

import contextlib
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from mlim_ray.data import storage
from mlim_ray.pipelines.search.database import open_database
from mlim_ray.pipelines.search.journal import JOURNAL, open_journal
from mlim_ray.training.run_folder import RunFolder

NAMES = "study.json"
_NUM_DIGITS = 8


class StudyNames(NamedTuple):
    """Of a search's two studies; no other search has them, so that many may share a database."""

    search: str
    confirmation: str


@dataclass(frozen=True)
class StudyStore:
    """An open storage."""

    storage: BaseStorage
    names: StudyNames
    on_change: Callable[[], None]
    """to be called after each write"""


def study_names(folder: RunFolder) -> StudyNames | None:
    """The names that the run folder remembers, wherever it was moved to; None before it has any."""
    try:
        return StudyNames(**folder.read_json(NAMES))
    except storage.MissingPathError:
        return None


def open_study(path: str, kind: Literal["search", "confirmation"] = "search") -> optuna.Study:
    """One of the two studies of the search in a local folder, to read.

    Raises:
        ValueError: there is none.
    """
    folder = RunFolder(path)
    names = study_names(folder)
    if names is None or not storage.exists(folder.file(JOURNAL)):
        raise ValueError(f"{path} holds no {NAMES} and {JOURNAL}, expected the folder of a search")
    kept = JournalStorage(JournalFileBackend(folder.file(JOURNAL)))
    try:
        return optuna.load_study(study_name=getattr(names, kind), storage=kept)
    except KeyError:
        raise ValueError(f"the {kind} of {path} has not begun") from None


def _new_names(folder: RunFolder) -> StudyNames:
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.path.rpartition("/")[2])
    search = f"{stem}-{uuid.uuid4().hex[:_NUM_DIGITS]}"
    names = StudyNames(search, f"{search}-confirmation")
    folder.write_json(NAMES, names._asdict())
    return names


@contextlib.contextmanager
def open_store(folder: RunFolder, url: str | None) -> Iterator[StudyStore]:
    """The studies' storage, for one driver.

    Args:
        folder: of the search.
        url: of a database; None: a journal in the run folder.

    Raises:
        ValueError: the storage cannot be used, or has lost a study that was begun.
    """
    names = study_names(folder) or _new_names(folder)
    if url is None:
        with open_journal(folder, names.search) as (path, on_change):
            yield StudyStore(JournalStorage(JournalFileBackend(path)), names, on_change)
        return
    database = open_database(url)
    try:
        known = {study.study_name for study in database.get_all_studies()}
        if names.search not in known and storage.exists(folder.file("trials")):
            raise ValueError(
                f"--search.storage: {url} holds no study {names.search}, which the search in {folder.path} was begun "
                "with; name the database that does"
            )
        yield StudyStore(database, names, lambda: None)
    finally:
        database.remove_session()
        database.engine.dispose()
