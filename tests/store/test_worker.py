"""Both workers do one job after the other, tell on the loop, and tidy in between."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from ocm.store.worker import InlineWorker, ThreadWorker, Worker

MakeWorker = Callable[[], Worker]
WORKERS: dict[str, MakeWorker] = {"inline": InlineWorker, "thread": lambda: ThreadWorker("worker of a test")}


@pytest.fixture(params=WORKERS.values(), ids=list(WORKERS))
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    made: Worker = request.param()
    yield made
    made.close()


async def test_jobs_are_done_and_told_in_order_and_on_the_loop(worker: Worker) -> None:
    worker.start(lambda: None)
    told: list[tuple[int, int]] = []
    all_told = asyncio.Event()

    def done(result: int) -> None:
        told.append((result, threading.get_ident()))
        if len(told) == 5:
            all_told.set()

    for number in range(5):
        worker.run(partial(int, number), done)
    async with asyncio.timeout(10):
        await all_told.wait()
    assert told == [(number, threading.get_ident()) for number in range(5)]


async def test_a_job_that_is_asked_for_while_one_is_told_comes_after_it(worker: Worker) -> None:
    worker.start(lambda: None)
    order: list[str] = []
    end = asyncio.Event()

    def first(_: None) -> None:
        worker.run(lambda: order.append("second"), lambda _: end.set())
        order.append("first")

    worker.run(lambda: None, first)
    async with asyncio.timeout(10):
        await end.wait()
    assert order == ["first", "second"]


async def test_closing_does_and_tells_what_was_asked_for(worker: Worker) -> None:
    worker.start(lambda: None)
    told: list[int] = []
    for number in range(5):
        worker.run(partial(int, number), told.append)
    worker.close()
    worker.close()
    assert told == [0, 1, 2, 3, 4]
    await asyncio.sleep(0)
    assert told == [0, 1, 2, 3, 4], "told once"


async def test_it_tidies_after_each_job(worker: Worker) -> None:
    happened: list[str] = []
    worker.start(lambda: happened.append("tidy"))
    for _ in range(2):
        worker.run(lambda: happened.append("job"), lambda _: None)
    worker.close()
    assert happened == ["job", "tidy", "job", "tidy"]


async def test_a_thread_tidies_when_it_has_nothing_to_do() -> None:
    worker = ThreadWorker("worker of a test")
    tidied = threading.Event()
    worker.start(tidied.set)
    assert await asyncio.to_thread(tidied.wait, 10)
    worker.close()


def test_a_thread_whose_loop_has_ended_is_heard_when_it_is_closed() -> None:
    worker = ThreadWorker("worker of a test")
    worker.start(lambda: None)
    told: list[str] = []
    go_on = threading.Event()

    async def ask() -> None:
        worker.run(lambda: str(go_on.wait(10)), told.append)

    asyncio.run(ask())
    go_on.set()
    worker.close()
    assert told == ["True"]


def test_a_worker_that_never_began_can_be_closed(worker: Worker) -> None:
    worker.close()
