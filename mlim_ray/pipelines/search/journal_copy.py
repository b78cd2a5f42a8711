"""Copies of a growing journal in S3, made beside the search and not in its way."""

import logging
import threading
from types import TracebackType
from typing import Self

from mlim_ray.data import storage

logger = logging.getLogger(__name__)


class JournalCopy:
    """While open, each state of the journal that `due` is called for is copied, or a newer one instead of it.

    A copy takes a while, and much longer where the bucket is away; Tune's events wait for none. What could not be
    copied is copied with the next change, or at the end.

    Args:
        journal: the local file.
        target: where its copy lies.

    Raises:
        StorageError: at the end, if the bucket does not have all of the journal then.
    """

    def __init__(self, journal: str, target: str) -> None:
        self._journal = journal
        self._target = target
        self._due = threading.Event()
        self._has_ended = False
        self._num_copied = -1
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def due(self) -> None:
        """The journal has grown."""
        self._due.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._has_ended = True
        self._due.set()
        self._thread.join()
        try:
            self._copy()
        except storage.StorageError as failure:
            if error is None:
                raise storage.StorageError(self._behind(failure)) from failure
            # What ended the search is told first.
            logger.warning("%s", self._behind(failure))

    def _run(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            if self._has_ended:
                return
            try:
                self._copy()
            except storage.StorageError as failure:
                logger.warning("%s", self._behind(failure))

    def _copy(self) -> None:
        content = storage.read_bytes(self._journal)
        # A line may be in the middle of being written.
        content = content[: content.rfind(b"\n") + 1]
        if len(content) != self._num_copied:
            storage.write_bytes_atomically(self._target, content)
            self._num_copied = len(content)

    def _behind(self, failure: storage.StorageError) -> str:
        return f"{failure}; all of the search's journal is in {self._journal}: resume on this machine"
