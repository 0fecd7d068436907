"""The loop in virtual time: asyncio as it is, without waiting, in the same order each time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest

from ocm.errors import NotSimulated, OcmError, Stuck
from ocm.testing.virtual import START_S, NumberedTask, VirtualLoop


def run(program: Coroutine[Any, Any, Any], loop: VirtualLoop | None = None) -> Any:
    made = loop or VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: made) as runner:
        return runner.run(program)


def test_a_day_takes_no_time() -> None:
    async def wait() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    before = time.monotonic()
    assert run(wait()) == START_S + 86_400
    assert time.monotonic() - before < 86_400


def test_timers_run_in_the_order_of_their_time_and_of_asking_and_exactly_on_time() -> None:
    async def program() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        ran: list[tuple[str, float]] = []
        for name, delay_s in (("c", 0.2), ("a", 0.1), ("b", 0.1), ("now", 0.0), ("d", 0.3)):
            loop.call_at(START_S + delay_s, lambda name=name: ran.append((name, loop.time())))  # type: ignore[misc]
        loop.call_later(0.1, ran.append, ("never", 0.0)).cancel()
        await asyncio.sleep(1)
        return ran

    ran = run(program())
    assert [name for name, _ in ran] == ["now", "a", "b", "c", "d"]
    assert dict(ran)["d"] == START_S + 0.3


def test_many_cancelled_timers_are_thrown_away() -> None:
    async def program() -> int:
        loop = asyncio.get_running_loop()
        kept = loop.create_future()
        loop.call_later(3, kept.set_result, None)
        for _ in range(10_000):
            loop.call_later(1, int).cancel()
        assert isinstance(loop, VirtualLoop)
        size = len(loop._timers)
        await kept
        return size

    assert run(program()) < 300


def test_task_groups_and_time_outs_work() -> None:
    async def program() -> list[str]:
        said: list[str] = []

        async def worker(name: str, wait_s: float) -> None:
            try:
                await asyncio.sleep(wait_s)
                said.append(name)
            except asyncio.CancelledError:
                said.append(f"{name} cancelled")
                raise

        async def too_long() -> None:
            async with asyncio.timeout(5), asyncio.TaskGroup() as group:
                for number in range(12):
                    group.create_task(worker(f"{number}", 20.0 if number % 3 else 1.0))

        with pytest.raises(TimeoutError):
            await too_long()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 3)
        return said

    expected = [f"{number}" for number in (0, 3, 6, 9)]
    expected += [f"{number} cancelled" for number in range(12) if number % 3]
    assert run(program()) == expected


async def _in_thread() -> None:
    await asyncio.to_thread(time.monotonic)


async def _in_executor() -> None:
    await asyncio.get_running_loop().run_in_executor(None, time.monotonic)


async def _name() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 1)


async def _connection() -> None:
    await asyncio.open_connection("127.0.0.1", 1)


async def _server() -> None:
    await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)


async def _subprocess() -> None:
    await asyncio.create_subprocess_exec("true")


async def _signal() -> None:
    asyncio.get_running_loop().add_signal_handler(1, print)


async def _reader() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        asyncio.get_running_loop().add_reader(sock, print)


async def _from_thread() -> None:
    loop = asyncio.get_running_loop()
    errors: list[Exception] = []

    def call() -> None:
        try:
            loop.call_soon_threadsafe(print)
        except OcmError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    raise errors[0]


@pytest.mark.parametrize(
    "program",
    [_in_thread, _in_executor, _name, _connection, _server, _subprocess, _signal, _reader, _from_thread],
)
def test_what_leaves_virtual_time_is_refused_loudly(program: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = VirtualLoop()
    with pytest.raises(NotSimulated, match="cannot be used on a simulated network: ") as caught:
        run(program(), loop)
    assert loop.refusals == [caught.value]
    assert caught.value.what in str(caught.value)


def test_everybody_waiting_for_ever_is_told_by_name_and_place() -> None:
    async def reader() -> None:
        async with asyncio.timeout(None):
            await asyncio.Event().wait()  # for ever

    async def program() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(30):
                group.create_task(reader(), name=f"reader {number}")

    with pytest.raises(Stuck, match=r"everybody waits for ever") as caught:
        run(program())
    text = str(caught.value)
    assert "reader 3 waits in test_everybody" in text
    assert f"{__file__}:" in text
    assert "# for ever" in text
    assert "asyncio/" not in text
    assert "... and 11 more tasks" in text


def test_a_task_that_waits_in_asyncio_alone_is_told_by_name() -> None:
    async def program() -> None:
        await asyncio.create_task(asyncio.Event().wait(), name="the waiter")

    with pytest.raises(Stuck, match=r"the waiter waits in Event\.wait$"):
        run(program())


def test_running_in_circles_is_told() -> None:
    async def program() -> None:
        while True:  # noqa: ASYNC110 - that is the point
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="no time passes"):
        run(program())


def test_time_may_be_bounded() -> None:
    async def program() -> None:
        while True:  # noqa: ASYNC110 - that is the point
            await asyncio.sleep(1)

    loop = VirtualLoop()
    loop.until_s = START_S + 100
    with pytest.raises(Stuck, match="the time was over"):
        run(program(), loop)
    assert loop.time() == START_S + 100


def test_what_nobody_catches_is_kept_or_handed_to_the_handler() -> None:
    async def program() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    loop = VirtualLoop()
    run(program(), loop)
    assert [type(complaint["exception"]) for complaint in loop.complaints] == [ZeroDivisionError]
    told: list[Any] = []
    loop = VirtualLoop()

    def hear(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        told.append(context)

    loop.set_exception_handler(hear)
    assert loop.get_exception_handler() is not None
    run(program(), loop)
    assert len(told) == 1
    assert not loop.complaints


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_the_program_raises_comes_out(error: type[BaseException]) -> None:
    async def program() -> None:
        await asyncio.sleep(1)
        raise error

    with pytest.raises(error):
        run(program())


def test_generators_that_nobody_finished_are_closed() -> None:
    closed: list[str] = []

    async def numbers(name: str) -> AsyncGenerator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(1)
            closed.append(name)

    kept = numbers("kept")

    async def program() -> None:
        async for _ in numbers("dropped"):
            break
        gc.collect()
        await asyncio.sleep(2)
        assert closed == ["dropped"]
        await anext(kept)

    run(program())
    assert closed == ["dropped", "kept"]


def test_it_is_a_loop_like_others() -> None:
    loop = VirtualLoop()
    with contextlib.closing(loop):
        assert not loop.is_running()
        loop.set_debug(True)
        assert loop.get_debug()
        loop.set_debug(False)
        loop.call_soon_threadsafe(loop.stop)
        loop.run_forever()
        future = loop.create_future()
        loop.call_soon(loop.stop)
        with pytest.raises(RuntimeError, match="stopped before"):
            loop.run_until_complete(future)

        async def inside() -> None:
            assert loop.is_running()
            with pytest.raises(RuntimeError, match="running"):
                loop.close()
            with pytest.raises(RuntimeError, match="inside another"):
                VirtualLoop().run_forever()

        loop.run_until_complete(inside())

        def make(its: VirtualLoop, coroutine: Coroutine[Any, Any, None], **_: object) -> NumberedTask[None]:
            return NumberedTask(9, coroutine, loop=its)

        loop.set_task_factory(make)
        assert loop.get_task_factory() is not None
        task = loop.create_task(inside())
        assert hash(task) == 9
        loop.run_until_complete(task)
        loop.interrupt(ValueError("now"))
        with pytest.raises(ValueError, match="now"):
            loop.run_forever()
    loop.close()
    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(print)
