"""Where blocking calls wait: one event loop in one thread, for all blocks of the process.

The first block starts the thread, the last one ends it. One loop for all is what lets blocks share a
``MemoryNetwork``, and thirty clients cost one thread. The thread is a daemon that an exit handler ends in order:
a block that was never left does not keep the interpreter, yet other threads may use it to the last.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from ocm.errors import LocalProtocolError

Result = TypeVar("Result")
Face = TypeVar("Face")

EXIT_TIMEOUT_S: Final = 3.0
"""How long blocks that were never left may take to end when the interpreter exits."""
_ENDED: Final = "the ``with`` block has ended"
_STEP_S: Final = 0.5 if os.name == "nt" else None
"""How long a wait may be deaf to Ctrl-C: on Windows a lock is."""


class Ended(LocalProtocolError):
    """The ``with`` block that a call belongs to is over."""


class Call(Generic[Result]):
    """Something one thread waits for while the loop's thread does it."""

    def __init__(self, background: Background, blocks: frozenset[Block[Any]]) -> None:
        """Register; a failure of any of ``blocks`` is what ``wait`` then raises."""
        self.blocks = blocks
        self._background = background
        self._done = threading.Event()
        self._result: Result
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        background.add(self)

    def start(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> None:
        """Begin to do it, on the loop."""
        if not self.is_refused() and not self._is_doomed():
            self._task = asyncio.get_running_loop().create_task(self._run(work))

    def is_refused(self) -> bool:
        """Fail where a block is over; say so."""
        over = next((block for block in self.blocks if block.over), None)
        if over is not None:
            self.fail(over.error or Ended(_ENDED))
        return over is not None

    def cancel(self) -> None:
        """Forget it: nobody waits any more."""
        self._background.discard(self)
        self.stop()

    def stop(self) -> None:
        """Stop doing it, on the loop."""
        if self._task is not None:
            self._task.cancel()

    def settle(self, result: Result) -> None:
        """Be done, unless something broke that is about to be told instead."""
        if not self._done.is_set() and not self._is_doomed():
            self._result = result
            self._finish()

    def fail(self, error: BaseException) -> None:
        """Have failed, unless something broke that is about to be told instead."""
        if not self._done.is_set() and not self._is_doomed():
            self._error = error
            self._finish()

    def wait(self) -> Result:
        """Return the result or raise the error. Interrupted (Ctrl-C), let it go."""
        try:
            until(self._done)
        except BaseException:
            self._background.soon(self.cancel)
            raise
        if self._error is not None:
            raise self._error
        return self._result

    async def _run(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> None:
        try:
            result = await work()
        except asyncio.CancelledError:
            self.fail(Ended(_ENDED))
        except BaseException as error:  # it is our caller's
            self.fail(error)
        else:
            self.settle(result)

    def _is_doomed(self) -> bool:
        return any(block.failing for block in self.blocks)

    def _finish(self) -> None:
        self._background.discard(self)
        self._done.set()


class Background:
    """The loop, its thread, and who waits for it."""

    def __init__(self) -> None:
        """Start."""
        self.users = 0
        self.forked = False
        """Whether we are the child of the process that the thread runs in."""
        self.blocks: set[Block[Any]] = set()
        self._calls: set[Call[Any]] = set()
        self._lock = threading.RLock()  # a signal handler of the program may come in between, and call us
        self._closed = False
        self._stop = asyncio.Event()
        self._ended = threading.Event()
        self._loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, name="ocm.blocking", daemon=True)
        try:
            self.thread.start()
        except BaseException:
            self._loop.close()
            raise

    def soon(self, act: Callable[[], object]) -> None:
        """Have the loop do something, if it still runs."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(act)

    def add(self, call: Call[Any]) -> None:
        """Take note of a call. Raises ``Ended`` when nobody will ever serve it."""
        with self._lock:
            if self._closed:
                raise Ended(_ENDED)
            self._calls.add(call)

    def discard(self, call: Call[Any]) -> None:
        """Forget a call."""
        with self._lock:
            self._calls.discard(call)

    def calls(self) -> list[Call[Any]]:
        """Return what is waited for."""
        with self._lock:
            return list(self._calls)

    def stop(self, timeout_s: float | None = None) -> None:
        """End the thread, and wait until it has ended."""
        self.soon(self._stop.set)
        if threading.current_thread() is self.thread:
            return
        until(self._ended, timeout_s)
        if self._ended.is_set():
            self.thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())
        with self._lock:
            self._closed = True
        for call in self.calls():
            call.fail(Ended(_ENDED))
        self._ended.set()

    async def _serve(self) -> None:
        await self._stop.wait()
        for block in self.blocks:  # at the interpreter's exit
            block.end(politely=False)
        while self.blocks:
            await asyncio.wait([block.task for block in self.blocks if block.task is not None])


class Block(AbstractContextManager[Face]):
    """A ``with`` block that holds an ``async with`` block of the same meaning open, on the loop."""

    def __init__(
        self, opening: Callable[[Block[Face]], AbstractAsyncContextManager[Face]], parent: Block[Any] | None = None
    ) -> None:
        """Prepare to enter what ``opening`` returns, which is called on the loop."""
        self.task: asyncio.Task[None] | None = None
        self.failing = False
        """Whether it ends by itself, of an error that is still to come out."""
        self.over = False
        self.error: BaseException | None = None
        self._opening = opening
        self._chain: frozenset[Block[Any]] = frozenset({self} if parent is None else {self, *parent._chain})
        self._background: Background | None = None
        self._ending = False
        self._entered = False
        self._exited = False
        self._left = asyncio.Event()
        self._closed = threading.Event()
        self._siblings: list[Block[Any]] = []

    # --- what the caller's thread does ------------------------------------------------------------------

    def __enter__(self) -> Face:
        """Enter, waiting."""
        _refuse_to_stop_a_loop()
        if self._entered:
            raise LocalProtocolError("a ``with`` block is entered once; ask for another")
        self._entered = True
        background = self._background = _acquire()
        try:
            opening: Call[Face] = Call(background, self._around() - {self})
            background.soon(lambda: self._start(background, opening))
            face = opening.wait()
        except BaseException:
            self._finish(politely=False)
            raise
        self._siblings = _here.blocks
        self._siblings.append(self)
        return face

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave, waiting. Raises what ended the block from inside."""
        background = self._background
        assert background is not None, "it was entered"
        self._siblings.remove(self)
        self._exited = True
        if background.forked:
            return  # the block is our parent's, and so are its connections
        self._finish(politely=kind is None)
        if self.error is not None and self.error is not error and (error is None or isinstance(error, Exception)):
            raise self.error

    def check(self) -> None:
        """Raise ``LocalProtocolError`` where no call can be served."""
        if self._background is not None and self._background.forked:
            raise Ended("this ``with`` block belongs to the process that forked; open another one here")
        if self._exited:
            raise Ended(_ENDED)

    def call(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Return what ``work``, run on the loop, returns; raise what it raises."""
        _refuse_to_stop_a_loop()
        self.check()
        background = self._background
        assert background is not None, "its face is handed out when it was entered"
        call: Call[Result] = Call(background, self._around())
        background.soon(lambda: call.start(work))
        return call.wait()

    def ask(self, function: Callable[[], Result]) -> Result:
        """Return what ``function``, called on the loop, returns; raise what it raises."""
        if self._background is not None and threading.current_thread() is self._background.thread:
            self.check()
            return function()  # from inside ``authorize``, say

        async def work() -> Result:
            return function()

        return self.call(work)

    def _around(self) -> frozenset[Block[Any]]:
        """Return the blocks whose end ends our calls: those we stand on, and those this thread is inside of."""
        return self._chain | frozenset(_here.blocks)

    def _finish(self, *, politely: bool) -> None:
        background = self._background
        assert background is not None, "it was entered"
        try:
            background.soon(lambda: self.end(politely=politely))
            _refuse_to_stop_a_loop()
            try:
                until(self._closed)
            except BaseException:  # Ctrl-C on the way out: less politely, then
                background.soon(lambda: self.end(politely=False, again=True))
                until(self._closed)
                raise
        finally:
            _release(background)

    # --- what the loop's thread does --------------------------------------------------------------------

    def end(self, *, politely: bool, again: bool = False) -> None:
        """Have the block end: as at the end of its lines, or as by an exception."""
        hurry = not politely and (again or not (self._ending or self.failing))
        self._ending = True
        self._left.set()
        if hurry and self.task is not None:
            self.task.cancel()

    def _start(self, background: Background, opening: Call[Face]) -> None:
        if opening.is_refused():
            self._closed.set()
            return
        self.task = asyncio.get_running_loop().create_task(self._live(opening))
        background.blocks.add(self)
        self.task.add_done_callback(lambda _: self._close(background, opening))

    async def _live(self, opening: Call[Face]) -> None:
        try:
            async with self._opening(self) as face:
                opening.settle(face)
                try:
                    await self._left.wait()
                except asyncio.CancelledError:
                    self.failing = not self._ending  # something below us broke; what, comes out of the ``async with``
                    raise
        except BaseException as error:  # our caller's: it leaves by ``__exit__``, and by the calls that wait
            if not isinstance(error, asyncio.CancelledError):
                self.error = error

    def _close(self, background: Background, opening: Call[Face]) -> None:
        self.over, self.failing = True, False
        background.blocks.discard(self)
        opening.fail(self.error or Ended(_ENDED))
        for call in background.calls():
            if self in call.blocks:
                call.fail(self.error or Ended(_ENDED))
                call.stop()
        self._closed.set()


class _Here(threading.local):
    """What is true of one thread."""

    def __init__(self) -> None:
        self.blocks: list[Block[Any]] = []
        """The blocks it is inside of."""


_here: Final = _Here()


class _Shared:
    """The background of this process, while there are blocks."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.background: Background | None = None


_shared = _Shared()


def _acquire() -> Background:
    with _shared.lock:
        if _shared.background is None:
            _shared.background = Background()
        _shared.background.users += 1
        return _shared.background


def _release(background: Background) -> None:
    with _shared.lock:
        background.users -= 1
        last = not background.users
        if last:
            _shared.background = None
    if last:
        background.stop()


def until(event: threading.Event, timeout_s: float | None = None) -> None:
    """Wait for ``event``, hearing Ctrl-C; or for so many seconds."""
    if timeout_s is not None:
        event.wait(timeout_s)
        return
    while not event.wait(_STEP_S):
        pass


def _refuse_to_stop_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise LocalProtocolError("ocm.blocking would stop the event loop that runs here while it waits: use ocm itself")


def _after_fork() -> None:
    """In the child: the thread did not come along."""
    global _shared  # noqa: PLW0603 - its lock may be held by a thread that is gone
    if _shared.background is not None:
        _shared.background.forked = True
    _shared = _Shared()
    _here.blocks = []


def _at_exit() -> None:
    """End what was never left."""
    background = _shared.background
    if background is not None:
        background.stop(EXIT_TIMEOUT_S)


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
