"""Events between a driver that must not wait and a reader that may: bounded, in order, for one reader."""

from __future__ import annotations

import asyncio
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import LocalProtocolError, TransportClosed
from ocm.inbox import Inbox
from ocm.protocol.entry import Reason
from ocm.protocol.events import Announcement, Event, Gap, RoomClosed
from tests.virtual import quiet, virtual


def said(number: int) -> Announcement:
    return Announcement(str(number))


def filled(count: int, most: int = 100) -> Inbox:
    inbox = Inbox(most)
    for number in range(count):
        inbox.put(said(number))
    return inbox


async def rest(inbox: Inbox) -> list[Event]:
    return [event async for event in inbox.read()]


@given(most=st.integers(1, 5), puts=st.lists(st.integers(0, 8), max_size=8), reads=st.lists(st.integers(0, 4)))
@virtual
async def test_every_event_is_read_in_order_or_counted_in_a_gap(most: int, puts: list[int], reads: list[int]) -> None:
    inbox = Inbox(most)
    reader = inbox.read()
    seen: list[Event] = []
    number = 0
    for turn, count in enumerate(puts):
        for _ in range(count):
            inbox.put(said(number))
            number += 1
        for _ in range(reads[turn] if turn < len(reads) else 0):
            try:
                async with asyncio.timeout(0.1):
                    seen.append(await anext(reader))
            except TimeoutError:
                break
    inbox.close()
    left = [event async for event in reader]
    assert len(left) <= most + 2
    at = 0
    for event in seen + left:
        if isinstance(event, Gap):
            assert event.missed > 0
            at += event.missed
        else:
            assert event == said(at)
            at += 1
    assert at == number


@virtual
async def test_the_newest_are_dropped_and_a_gap_stands_in_their_place() -> None:
    inbox = filled(5, most=3)
    reader = inbox.read()
    assert [await anext(reader) for _ in range(4)] == [said(0), said(1), said(2), Gap(2)]
    inbox.put(said(5))
    assert await anext(reader) == said(5)


@virtual
async def test_a_gap_comes_before_what_was_kept_after_it() -> None:
    inbox = filled(5, most=3)
    reader = inbox.read()
    assert await anext(reader) == said(0)
    inbox.put(said(5))
    inbox.close()
    assert [event async for event in reader] == [said(1), said(2), Gap(2), said(5)]


@virtual
async def test_a_closed_inbox_is_read_to_its_last_word() -> None:
    inbox = filled(3, most=2)
    last = RoomClosed(Reason.HOST_LEFT)
    inbox.close(last)
    assert inbox.closed
    inbox.close(RoomClosed(Reason.GONE))
    inbox.put(said(9))
    assert await rest(inbox) == [said(0), said(1), Gap(1), last]
    assert await rest(inbox) == []


@virtual
async def test_the_error_it_was_closed_with_is_raised_once_after_the_events() -> None:
    inbox = filled(1)
    inbox.close(error=TransportClosed("gone"))
    reader = inbox.read()
    assert await anext(reader) == said(0)
    with pytest.raises(TransportClosed):
        await anext(reader)
    assert await rest(inbox) == []


@virtual
async def test_a_reader_wakes_for_an_event_and_for_the_end() -> None:
    inbox = Inbox(10)
    reading = asyncio.ensure_future(rest(inbox))
    await quiet()
    inbox.put(said(0))
    await quiet()
    assert not reading.done()
    inbox.close()
    assert await reading == [said(0)]


@virtual
async def test_a_reader_that_is_cancelled_loses_nothing() -> None:
    inbox = Inbox(10)
    reader = inbox.read()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await anext(reader)
    waiting = asyncio.ensure_future(anext(reader))
    await quiet()
    inbox.put(said(0))
    waiting.cancel()
    await asyncio.wait([waiting])
    assert await anext(reader) == said(0)


@virtual
async def test_two_tasks_at_one_iterator_share_its_events() -> None:
    inbox = Inbox(10)
    reader = inbox.read()
    tasks = [asyncio.ensure_future(anext(reader)) for _ in range(2)]
    await quiet()
    inbox.put(said(0))
    await quiet()
    assert sum(task.done() for task in tasks) == 1
    inbox.put(said(1))
    assert {event.text for event in await asyncio.gather(*tasks) if isinstance(event, Announcement)} == {"0", "1"}


def test_a_second_iterator_is_refused_until_the_first_is_closed() -> None:
    inbox = Inbox(10)
    first = inbox.read()
    with pytest.raises(LocalProtocolError):
        inbox.read()
    first.close()
    first.close()
    second = inbox.read()
    first.close()
    with pytest.raises(LocalProtocolError):
        inbox.read()
    second.close()


@virtual
async def test_a_closed_iterator_ends_and_takes_no_event_along() -> None:
    inbox = filled(1)
    reader = inbox.read()
    reader.close()
    assert [event async for event in reader] == []
    assert await anext(inbox.read()) == said(0)


@virtual
async def test_a_loop_that_breaks_lets_another_begin() -> None:
    inbox = filled(3)
    async for event in inbox.read():
        assert event == said(0)
        break
    gc.collect()
    inbox.close()
    assert await rest(inbox) == [said(1), said(2)]
