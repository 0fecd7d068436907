"""Where commands write: whole lines, at once, in whatever encoding and state the other end is."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from typing import Final, TextIO

from ocm.cli.fold import fold
from ocm.protocol.text import safe_text

STDOUT: Final = 1
STDERR: Final = 2


class Screen:
    r"""A terminal, a pipe or a file. What its encoding lacks is written as ``\u3042``.

    Lines go to the system at once. ``BrokenPipeError`` is raised when nobody reads any more.
    """

    def __init__(self, fd: int, *, encoding: str | None = None) -> None:
        """Write to ``fd``."""
        self._fd = fd
        stream: TextIO | None = sys.stderr if fd == STDERR else sys.stdout
        self._encoding = encoding or getattr(stream, "encoding", None) or "utf-8"

    @property
    def is_terminal(self) -> bool:
        """Whether a person is looking."""
        return os.isatty(self._fd)

    @property
    def columns(self) -> int:
        """How wide a terminal is; 0 where that is not known, and where it is none."""
        try:
            return os.get_terminal_size(self._fd).columns
        except OSError:
            return 0

    def line(self, text: str) -> None:
        """Write a line as it is. What peers wrote was made safe before."""
        self.write(text + "\n")

    def tell(self, *lines: str) -> None:
        """Write lines for people, all at once: a terminal does not cut their words."""
        self.write("".join(f"{fold(line, self.columns)}\n" for line in lines))

    def write(self, text: str) -> None:
        """Write a piece of a line: a prompt."""
        left = memoryview(text.encode(self._encoding, "backslashreplace"))
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:  # some other program has made our terminal non-blocking
                select.select([], [self._fd], [])


def complain(sentence: str) -> None:
    """Write one line of trouble on stderr, if anybody is there to read it."""
    with contextlib.suppress(OSError):
        Screen(STDERR).tell(f"ocm: {safe_text(sentence)}")


def reserve_standard_files() -> None:
    """Put the null device where stdin, stdout or stderr is closed, or a socket would take its number."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
