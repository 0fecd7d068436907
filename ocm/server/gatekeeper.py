"""Who may enter: the embedding program's ``authorize``, asked at once or awaited."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from ocm.errors import LocalProtocolError, OcmError
from ocm.protocol.entry import Refusal
from ocm.protocol.limits import Limits
from ocm.protocol.names import user_name


@dataclass(frozen=True, slots=True)
class Knock:
    """Somebody asks to enter a room, before anything is decided: what ``authorize`` is asked about."""

    room: str
    """The room it asks for; the name is as it came."""
    user: str
    """The name it wants, as it came."""
    host: str
    """The numeric address it comes from; empty for a member without a socket."""
    creates: bool
    """Whether it wants to make the room, and be its host."""
    password: str | None = field(default=None, repr=False)
    """What it shows to be let in, where it shows anything; it came unencrypted."""


Verdict: TypeAlias = bool | str
"""True: let them in. A name: let them in under it. False: refuse, in the words of a room that does not exist."""
Authorize: TypeAlias = Callable[[Knock], Verdict | Awaitable[Verdict]]
"""Decides who may enter, at once or by a coroutine. What it raises ends the server."""
Decided: TypeAlias = Callable[[str | Refusal], None]
"""Takes the name to enter under, or why not."""


class Gatekeeper:
    """Asks ``authorize`` about each who wants in; without one everybody may.

    What it raises is the embedding program's own failure: it goes to ``on_failure``, and the one who asked is
    refused for now.
    """

    def __init__(self, authorize: Authorize | None, limits: Limits, on_failure: Callable[[Exception], None]) -> None:
        """Ask ``authorize``; None lets everybody in."""
        self._authorize = authorize
        self._limits = limits
        self._on_failure = on_failure
        self._waiting: set[asyncio.Task[None]] = set()

    def ask(self, knock: Knock, decided: Decided) -> None:
        """Call ``decided``, now or later."""
        if self._authorize is None:
            decided(knock.user)
            return
        try:
            verdict = self._authorize(knock)
        except Exception as error:  # the embedding program's own: it ends the server's block
            self._fail(error, decided)
            return
        if inspect.isawaitable(verdict):
            task = asyncio.get_running_loop().create_task(self._wait_for(verdict, knock, decided))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)
        else:
            self._judge(verdict, knock, decided)

    def stop(self) -> None:
        """Wait for no verdict any more; who waits for one hears nothing."""
        for task in self._waiting:
            task.cancel()

    def check_user(self, user: str) -> None:
        """Raise ``LocalProtocolError`` where our own program gives a name that cannot be one."""
        try:
            user_name(user.encode(), code_points_max=self._limits.user_code_points_max)
        except (OcmError, UnicodeEncodeError) as error:
            raise LocalProtocolError(why_not(error)) from None

    async def _wait_for(self, verdict: Awaitable[Verdict], knock: Knock, decided: Decided) -> None:
        try:
            judged = await verdict
        except Exception as error:  # as above
            self._fail(error, decided)
        else:
            self._judge(judged, knock, decided)

    def _judge(self, verdict: Verdict, knock: Knock, decided: Decided) -> None:
        if not isinstance(verdict, str):
            decided(knock.user if verdict else Refusal.NOT_FOUND)
            return
        try:
            self.check_user(verdict)
        except LocalProtocolError as error:
            self._fail(LocalProtocolError(f"authorize gave a name that cannot be used: {error}"), decided)
        else:
            decided(verdict)

    def _fail(self, error: Exception, decided: Decided) -> None:
        self._on_failure(error)
        decided(Refusal.UNAVAILABLE)


def why_not(error: Exception) -> str:
    """Say why a text cannot be a name."""
    return "a name is Unicode text" if isinstance(error, UnicodeEncodeError) else str(error)
