"""Lines of stdin, for an event loop: from a terminal, a pipe, a file or the null device, without a thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from enum import StrEnum
from typing import Final, TypeAlias

from ocm.protocol.wire.frames import BODY_SIZE_MAX

LINE_SIZE_MAX: Final = BODY_SIZE_MAX
"""Bytes of a line: no message of any profile has more, so what is longer is not kept."""
_READ_SIZE: Final = 65_536


class Unreadable(StrEnum):
    """A line that cannot be a message, and why: the codes of ``SendRefused``."""

    TOO_LARGE = "too_large"
    NOT_TEXT = "not_text"


Line: TypeAlias = str | Unreadable


class Framer:
    r"""Cuts a stream of bytes into lines at ``\n`` and nowhere else. Keeps ``LINE_SIZE_MAX`` bytes at most."""

    def __init__(self) -> None:
        """Start at the beginning of a line."""
        self._kept = bytearray()
        self._too_large = False

    def feed(self, data: bytes) -> list[Line]:
        """Take bytes; return the lines that they complete."""
        *ends, rest = data.split(b"\n")
        lines: list[Line] = []
        for piece in ends:
            self._keep(piece)
            lines.append(self._finish())
        self._keep(rest)
        return lines

    def end(self) -> list[Line]:
        """Return the last line, where it has no end of its own."""
        return [self._finish()] if self._kept or self._too_large else []

    def _keep(self, piece: bytes) -> None:
        if self._too_large or len(self._kept) + len(piece) > LINE_SIZE_MAX:
            self._too_large = True
            self._kept.clear()
        else:
            self._kept += piece

    def _finish(self) -> Line:
        kept, self._kept = self._kept, bytearray()
        too_large, self._too_large = self._too_large, False
        if too_large:
            return Unreadable.TOO_LARGE
        try:
            return kept.removesuffix(b"\r").decode()
        except UnicodeDecodeError:
            return Unreadable.NOT_TEXT


class Stdin:
    """Reads lines from a file descriptor, no faster than they are asked for."""

    def __init__(self, fd: int = 0) -> None:
        """Read from ``fd``; its flags stay as they are, since a terminal is shared with others."""
        self._fd = fd
        self._framer = Framer()
        self._lines: deque[Line] = deque()
        self._ended = False
        self._can_wait = True

    @property
    def is_terminal(self) -> bool:
        """Whether a person types."""
        return os.isatty(self._fd)

    async def line(self) -> Line | None:
        """Return the next line, or None at the end."""
        while not self._lines and not self._ended:
            await self._readable()
            data = self._read()
            if data is not None:
                self._ended = not data
                self._lines.extend(self._framer.feed(data) if data else self._framer.end())
        return self._lines.popleft() if self._lines else None

    def _read(self) -> bytes | None:
        try:
            return os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            return None  # another program that shares the file was quicker
        except OSError:
            return b""  # a terminal that is gone, a directory

    async def _readable(self) -> None:
        if not self._can_wait:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        try:
            loop.add_reader(self._fd, ready.set)
        except PermissionError:  # epoll takes no regular files: these never make one wait
            self._can_wait = False
            return
        with contextlib.closing(_Reader(loop, self._fd)):
            await ready.wait()


class _Reader:
    """An interest in a file descriptor, to be given up."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        self._loop = loop
        self._fd = fd

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
