"""What passes between a trial and its workers: who wants a score, and the scores.

Ray Train's own way, `report` with a callback of Tune's, blocks for good where the driver is slow; here each side asks,
and waits for nobody but the one it asks.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ray

if TYPE_CHECKING:
    from mlim_ray.pipelines.search.trial_job import Entry


class Relay:
    """An actor: the trial asks for the next rung's entry, and the workers whether anybody wants one.

    Nothing in it is needed after a crash. Workers that start again hand in the trial's whole history, and what was
    handed in before is not asked for twice.
    """

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._wanted_after = -1
        self._is_ended = False
        self._changed = asyncio.Condition()

    async def next_entry(self, after: int) -> "Entry":
        """For the trial: the first entry beyond `after` samples, once there is one."""
        self._wanted_after = max(self._wanted_after, after)
        await self._until(lambda: any(samples > after for samples in self._entries))
        return self._entries[min(samples for samples in self._entries if samples > after)]

    async def add(self, entries: "list[Entry]") -> None:
        """For the first worker: entries that were scored."""
        self._entries |= {entry[0]: entry for entry in entries}
        await self._notify()

    async def is_wanted(self, after: int) -> bool:
        """For each worker: True once an entry beyond `after` samples is asked for; False when the trial is over."""
        await self._until(lambda: self._is_ended or self._wanted_after >= after)
        return not self._is_ended

    async def end(self) -> None:
        """For the trial: nothing more is wanted."""
        self._is_ended = True
        await self._notify()

    async def _until(self, is_so: Callable[[], bool]) -> None:
        await self._notify()
        async with self._changed:
            await self._changed.wait_for(is_so)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def start_relay() -> Any:
    """A new relay's handle; it ends with the process that started it."""
    return ray.remote(num_cpus=0)(Relay).remote()
