"""The relay between a trial and its workers, without Ray: who waits for whom, and what a restart of workers changes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from mlim_ray.pipelines.search.relay import Relay


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 10))


async def is_waiting(task: asyncio.Task[Any]) -> bool:
    for _ in range(10):
        await asyncio.sleep(0)
    return not task.done()


def test_workers_train_a_rung_only_once_it_is_asked_for() -> None:
    async def test() -> None:
        relay = Relay()
        workers = [asyncio.create_task(relay.is_wanted(0)) for _ in range(2)]
        assert await is_waiting(workers[0])
        trial = asyncio.create_task(relay.next_entry(0))
        assert await asyncio.gather(*workers) == [True, True]
        assert await is_waiting(trial)
        await relay.add([(300, {"probe": 0.9})])
        assert await trial == (300, {"probe": 0.9})
        # Until its verdict is known, nobody goes beyond it.
        assert await is_waiting(asyncio.create_task(relay.is_wanted(300)))

    run(test())


def test_a_history_is_handed_on_rung_by_rung_and_nothing_is_trained_again() -> None:
    async def test() -> None:
        relay = Relay()
        await relay.add([(300, {"probe": 0.9}), (900, {"probe": 0.8})])
        assert (await relay.next_entry(299))[0] == 300
        worker = asyncio.create_task(relay.is_wanted(900))
        assert await is_waiting(worker)
        assert (await relay.next_entry(300))[0] == 900
        trial = asyncio.create_task(relay.next_entry(900))
        assert await worker
        # The workers died after they had saved the rung, and before they handed it in.
        await relay.add([(300, {"probe": 0.9}), (900, {"probe": 0.8}), (2700, {"probe": 0.7})])
        assert (await trial)[0] == 2700

    run(test())


def test_workers_go_when_the_trial_is_over() -> None:
    async def test() -> None:
        relay = Relay()
        await relay.add([(300, {"probe": 0.9})])
        waiting = asyncio.create_task(relay.is_wanted(300))
        assert await is_waiting(waiting)
        await relay.end()
        assert not await waiting and not await relay.is_wanted(300)

    run(test())
