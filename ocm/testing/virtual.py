"""Virtual time: an event loop that never waits. When nothing is ready its clock jumps to what is due next.

So a program may say "two minutes later" and take a millisecond, runs the same way each time, and fails at once
where everybody waits for ever. It is for whatever moves by callbacks alone, as a simulated network does: threads,
sockets, processes and signals belong to another time and are refused (``NotSimulated``).
"""

from __future__ import annotations

import asyncio
import heapq
import linecache
import math
import sys
import threading
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context
from typing import Any, Final, TypeVar, TypeVarTuple, cast

from ocm.errors import NotSimulated, Stuck

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START_S: Final = 1000.0
"""What the clock shows at first: far from 0, so that nothing rests on that."""
SPINS_MAX: Final = 200_000
"""Turns of the loop at one moment of time, before somebody must be running in circles."""
_TASKS_SHOWN_MAX: Final = 20
_CANCELLED_MIN: Final = 100
_ASYNCIO: Final = str(asyncio.__file__).rpartition("__init__")[0]

_THREAD: Final = "a thread knows nothing of virtual time, so the clock would run ahead of it"
_SOCKET: Final = "here programs meet on the simulated network; give ocm.serve and ocm.connect no network of their own"
_SYSTEM: Final = "the system's time is not virtual time"


class NumberedTask(asyncio.Task[T]):
    """A task whose hash is its number: sets of tasks are gone through in the same order each time.

    ``TaskGroup`` cancels its tasks in that order, and so does whoever ends the loop.
    """

    def __init__(self, number: int, coroutine: Coroutine[Any, Any, T], **options: Any) -> None:  # noqa: ANN401
        """Start ``coroutine``."""
        self._number = number
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Refused:
    """A method of loops that has no place in virtual time."""

    def __init__(self, why: str) -> None:
        self._why = why

    def __set_name__(self, owner: type[object], name: str) -> None:
        self._name = name

    def __get__(self, loop: VirtualLoop | None, owner: type[object]) -> Callable[..., Any]:
        def refuse(*_: object, **__: object) -> Any:  # noqa: ANN401
            assert loop is not None, "it is called on a loop"
            raise loop.refuse(self._name, self._why)

        return refuse


class VirtualLoop(asyncio.AbstractEventLoop):
    """An event loop whose time is virtual; see the module.

    Callbacks of one moment run in the order in which they were asked for.
    """

    def __init__(self, start_s: float = START_S) -> None:
        """Make a loop whose clock shows ``start_s`` seconds."""
        self.complaints: list[dict[str, Any]] = []
        """What would have been logged: exceptions of callbacks, and those that nobody retrieved."""
        self.refusals: list[NotSimulated] = []
        """What was refused, whether or not somebody caught the error."""
        self.until_s = math.inf
        """When a program that is still running is ``Stuck``, by this clock."""
        self._now_s = start_s
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._cancelled = 0
        self._sequence = 0
        self._tasks = 0
        self._spins = 0
        self._thread: int | None = None
        self._error: Exception | None = None
        self._stopping = False
        self._closed = False
        self._debug = False
        self._task_factory: Any = None
        self._exception_handler: Any = None
        self._generators: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()

    # --- time -----------------------------------------------------------------------------------------

    def time(self) -> float:
        """Return virtual time, in seconds."""
        return self._now_s

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Call back in the loop's next turn, at the same moment of time."""
        self._check_closed()
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call back ``delay`` seconds from now."""
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call back when the clock shows ``when``, exactly."""
        self._check_closed()
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._sequence += 1
        heapq.heappush(self._timers, (when, self._sequence, handle))
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Do as ``call_soon``. Raises ``NotSimulated`` in any thread but the loop's own."""
        if self._thread not in {None, threading.get_ident()}:
            raise self.refuse("call_soon_threadsafe from another thread", _THREAD)
        return self.call_soon(callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Hear from a timer that it is not wanted any more; many of them are thrown away at once."""
        self._cancelled += 1
        if self._cancelled > _CANCELLED_MIN and self._cancelled > len(self._timers) // 2:
            self._timers = [timer for timer in self._timers if not timer[2].cancelled()]
            heapq.heapify(self._timers)
            self._cancelled = 0

    # --- running --------------------------------------------------------------------------------------

    def run_forever(self) -> None:
        """Run until ``stop``. Raises ``Stuck`` when everybody waits for ever."""
        self._check_closed()
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("a loop in virtual time cannot run inside another loop")
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._generators.add, finalizer=self._finish_generator)
        self._thread = threading.get_ident()
        asyncio._set_running_loop(self)
        try:
            while not self._stopping:
                self._turn()
        finally:
            self._stopping = False
            self._thread = None
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def run_until_complete(self, future: Any) -> Any:  # noqa: ANN401
        """Run until the future or coroutine is done; return its result. Raises ``Stuck`` as ``run_forever``."""
        self._check_closed()
        is_ours = not asyncio.isfuture(future)
        awaited: asyncio.Future[Any] = self.create_task(future) if is_ours else future
        awaited.add_done_callback(self._stop_after)
        try:
            self.run_forever()
        except BaseException:
            if is_ours and awaited.done() and not awaited.cancelled():
                awaited.exception()  # it goes on its way already
            raise
        finally:
            awaited.remove_done_callback(self._stop_after)
        if not awaited.done():
            raise RuntimeError("the loop was stopped before the future was done")
        return awaited.result()

    def interrupt(self, error: Exception) -> None:
        """Have whoever runs the loop raise ``error`` after this turn."""
        self._error = self._error or error

    def stop(self) -> None:
        """Stop after this turn."""
        self._stopping = True

    def is_running(self) -> bool:
        """Say whether it runs."""
        return self._thread is not None

    def is_closed(self) -> bool:
        """Say whether it was closed."""
        return self._closed

    def close(self) -> None:
        """Close. Idempotent."""
        if self.is_running():
            raise RuntimeError("a running loop cannot be closed")
        self._closed = True
        self._ready.clear()
        self._timers.clear()

    def _turn(self) -> None:
        """Run what is ready; when nothing is, jump to what is due next."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        timers, ready = self._timers, self._ready
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
            self._cancelled -= self._cancelled > 0
        if ready:
            self._spins += 1
            if self._spins > SPINS_MAX:
                raise Stuck(f"no time passes, yet there is always something to do\n{self.who_waits()}")
        elif not timers:
            raise Stuck(f"nothing is due, and everybody waits for ever\n{self.who_waits()}")
        if timers and not ready and timers[0][0] > self._now_s:
            if timers[0][0] > self.until_s:
                self.until_s, over_s = math.inf, self.until_s
                self._now_s = max(self._now_s, over_s)
                raise Stuck(f"not done when the time was over\n{self.who_waits()}")
            self._now_s = timers[0][0]
            self._spins = 0
        while timers and timers[0][0] <= self._now_s:
            handle = heapq.heappop(timers)[2]
            if handle.cancelled():
                self._cancelled -= self._cancelled > 0
            else:
                ready.append(handle)
        for _ in range(len(ready)):
            handle_ready = ready.popleft()
            if not handle_ready.cancelled():
                handle_ready._run()

    def _stop_after(self, done: asyncio.Future[Any]) -> None:
        if not done.cancelled() and isinstance(done.exception(), (SystemExit, KeyboardInterrupt)):
            return  # it ends the loop by itself
        self.stop()

    def _check_closed(self) -> None:
        if self._closed:
            raise RuntimeError("the loop is closed")

    # --- tasks ----------------------------------------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        """Make a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:  # noqa: ANN401
        """Start a coroutine as a task of this loop."""
        self._check_closed()
        if self._task_factory is not None:
            return cast("asyncio.Task[Any]", self._task_factory(self, coro, **options))
        self._tasks += 1
        return NumberedTask(self._tasks, coro, loop=self, **options)

    def set_task_factory(self, factory: Any) -> None:  # noqa: ANN401
        """Have ``factory(loop, coroutine, **options)`` make tasks; None: the loop does."""
        self._task_factory = factory

    def get_task_factory(self) -> Any:  # noqa: ANN401
        """Return who makes tasks."""
        return self._task_factory

    def who_waits(self) -> str:
        """Return a line for each task that is not done: its name, and where it waits."""
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: getattr(task, "_number", 0))
        lines = [f"  {task.get_name()} waits in {_where(task)}" for task in tasks[:_TASKS_SHOWN_MAX]]
        if len(tasks) > _TASKS_SHOWN_MAX:
            lines.append(f"  ... and {len(tasks) - _TASKS_SHOWN_MAX} more tasks")
        return "\n".join(lines)

    # --- errors ---------------------------------------------------------------------------------------

    def refuse(self, what: str, why: str) -> NotSimulated:
        """Make the error for what has no place here, and remember it: it may be caught, or raised in a thread."""
        error = NotSimulated(what, why)
        self.refusals.append(error)
        return error

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Hand what nobody caught to the handler; without one it is a complaint."""
        if self._exception_handler is None:
            self.default_exception_handler(context)
        else:
            self._exception_handler(self, context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep it in ``complaints``."""
        self.complaints.append(context)

    def set_exception_handler(self, handler: Any) -> None:  # noqa: ANN401
        """Have ``handler(loop, context)`` hear of exceptions that nobody caught."""
        self._exception_handler = handler

    def get_exception_handler(self) -> Any:  # noqa: ANN401
        """Return who hears of them."""
        return self._exception_handler

    def get_debug(self) -> bool:
        """Say whether asyncio's debug mode is on."""
        return self._debug

    def set_debug(self, enabled: bool) -> None:
        """Turn asyncio's debug mode on or off."""
        self._debug = enabled

    # --- the end --------------------------------------------------------------------------------------

    async def shutdown_asyncgens(self) -> None:
        """Close asynchronous generators that nobody finished."""
        for generator in list(self._generators):
            await generator.aclose()
        self._generators.clear()

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """There is none."""

    def _finish_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._generators.discard(generator)
        if not self._closed:
            self.call_soon_threadsafe(self.create_task, generator.aclose())

    # --- what has no place here -------------------------------------------------------------------------

    run_in_executor: Any = _Refused(_THREAD)
    set_default_executor: Any = _Refused(_THREAD)
    getaddrinfo: Any = _Refused(_SOCKET)
    getnameinfo: Any = _Refused(_SOCKET)
    create_connection: Any = _Refused(_SOCKET)
    create_server: Any = _Refused(_SOCKET)
    create_unix_connection: Any = _Refused(_SOCKET)
    create_unix_server: Any = _Refused(_SOCKET)
    create_datagram_endpoint: Any = _Refused(_SOCKET)
    connect_accepted_socket: Any = _Refused(_SOCKET)
    start_tls: Any = _Refused(_SOCKET)
    sendfile: Any = _Refused(_SOCKET)
    sock_recv: Any = _Refused(_SOCKET)
    sock_recv_into: Any = _Refused(_SOCKET)
    sock_recvfrom: Any = _Refused(_SOCKET)
    sock_recvfrom_into: Any = _Refused(_SOCKET)
    sock_sendall: Any = _Refused(_SOCKET)
    sock_sendto: Any = _Refused(_SOCKET)
    sock_sendfile: Any = _Refused(_SOCKET)
    sock_connect: Any = _Refused(_SOCKET)
    sock_accept: Any = _Refused(_SOCKET)
    add_reader: Any = _Refused(_SOCKET)
    remove_reader: Any = _Refused(_SOCKET)
    add_writer: Any = _Refused(_SOCKET)
    remove_writer: Any = _Refused(_SOCKET)
    connect_read_pipe: Any = _Refused(_SYSTEM)
    connect_write_pipe: Any = _Refused(_SYSTEM)
    subprocess_shell: Any = _Refused(_SYSTEM)
    subprocess_exec: Any = _Refused(_SYSTEM)
    add_signal_handler: Any = _Refused(_SYSTEM)
    remove_signal_handler: Any = _Refused(_SYSTEM)


def _where(task: asyncio.Task[Any]) -> str:
    """Return the innermost line of the task's own program, and the name of what it began with."""
    coroutine: Any = task.get_coro()
    name = getattr(coroutine, "__qualname__", repr(coroutine))
    places: list[tuple[str, int]] = []
    while (frame := getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)) is not None:
        places.append((frame.f_code.co_filename, frame.f_lineno))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    own = [place for place in places if not place[0].startswith(_ASYNCIO)]
    if not own:
        return f"{name}"
    file, line = own[-1]
    source = linecache.getline(file, line).strip()
    return f"{name}, {file}:{line}: {source}"
