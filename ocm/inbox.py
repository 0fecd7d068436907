"""A bounded queue of events between a driver, which must not wait, and one reader, which may."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from ocm.errors import LocalProtocolError
from ocm.protocol.events import Event, Gap


class Inbox:
    """Events of one room, for one reader.

    Above ``most`` events the newest are dropped and counted: the reader is told by a ``Gap`` in their place.
    Once closed, what is left is read, then iteration ends (or raises the error it was closed with).
    """

    def __init__(self, most: int) -> None:
        """Start empty and open."""
        self._most = most
        self._events: deque[Event] = deque()
        self._missed = 0
        self._wake = asyncio.Event()
        self._closed = False
        self._error: Exception | None = None
        self._is_read = False

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        return self._closed

    def put(self, event: Event) -> None:
        """Add an event. Never waits."""
        if self._closed:
            return
        if len(self._events) >= self._most:
            self._missed += 1
            return
        if self._missed:
            self._events.append(Gap(self._missed))
            self._missed = 0
        self._events.append(event)
        self._wake.set()

    def close(self, last: Event | None = None, *, error: Exception | None = None) -> None:
        """Add a last event, whatever the bound, and close. Idempotent."""
        if self._closed:
            return
        if self._missed:
            self._events.append(Gap(self._missed))
        if last is not None:
            self._events.append(last)
        self._error = error
        self._closed = True
        self._wake.set()

    def read(self) -> InboxReader:
        """Start to read. Raises ``LocalProtocolError`` when somebody reads already: they would share the events."""
        if self._is_read:
            raise LocalProtocolError("a room has one iterator; this one is taken")
        self._is_read = True
        return InboxReader(self)

    def release(self) -> None:
        """Let another reader start."""
        self._is_read = False

    async def take(self) -> Event:
        """Return the next event. Raises ``StopAsyncIteration`` at the end, or the error that ended it."""
        while not self._events:
            if self._missed and not self._closed:
                missed, self._missed = self._missed, 0
                return Gap(missed)
            if self._closed:
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._events.popleft()


class Source(Protocol):
    """What events are read from, by one reader at a time."""

    async def take(self) -> Event:
        """Return the next event. Raises ``StopAsyncIteration`` at the end, or the error that ended it."""
        ...

    def release(self) -> None:
        """Let another reader start."""
        ...


class InboxReader:
    """The one iterator of a room; when it is closed or thrown away another may start."""

    def __init__(self, inbox: Source) -> None:
        """Read from ``inbox``."""
        self._inbox: Source | None = inbox

    def __aiter__(self) -> InboxReader:
        """Iterate."""
        return self

    async def __anext__(self) -> Event:
        """Return the next event."""
        if self._inbox is None:
            raise StopAsyncIteration
        try:
            return await self._inbox.take()
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Stop reading. Idempotent."""
        if self._inbox is not None:
            self._inbox.release()
            self._inbox = None

    def __del__(self) -> None:
        """Stop reading: a ``break`` leaves the iterator to the garbage collector."""
        self.close()
