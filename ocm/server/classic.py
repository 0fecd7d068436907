"""The desk for classic connections: their requests, their seats, their datagrams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from ocm.protocol.address import host_key, split_address
from ocm.protocol.admission import Admission, Visit
from ocm.protocol.control.server import Request
from ocm.protocol.entry import CLASSIC_POLICY, KeptMember, KeptRoom, Reason, Refusal
from ocm.protocol.hub import Farewell, Hub, Release, Reseating, Seating, Turn
from ocm.protocol.limits import Limits
from ocm.protocol.link.base import Link
from ocm.protocol.link.classic import ClassicDoor, ClassicLink, Randomness, make_token, restore_link, slowed
from ocm.protocol.reception import LOG_ID_SIZE, REASONS
from ocm.protocol.room import Member
from ocm.protocol.wire.classic import Operation
from ocm.server.connection import Connection
from ocm.server.fanout import Fanout
from ocm.server.gatekeeper import Gatekeeper, Knock
from ocm.transport.base import Batch, Stream

_SLOWED_AFTER_S: Final = 1.0
"""How long drops over the allowance are gathered before the member is told of them."""


class ClassicDesk:
    """Everybody who speaks the classic profile."""

    def __init__(
        self,
        hub: Hub,
        limits: Limits,
        *,
        admission: Admission,
        gatekeeper: Gatekeeper,
        fanout: Fanout,
        randomness: Randomness,
        names_in_reference: bool,
        submit: Callable[[Turn], None],
        rearm: Callable[[], None],
        on_hung_up: Callable[[], None],
    ) -> None:
        """Begin without anybody.

        Args:
            hub: the rooms.
            limits: what peers may cost.
            admission: who may knock.
            gatekeeper: asks the embedding program.
            fanout: where datagrams go out.
            randomness: for tokens.
            names_in_reference: put the sender's name into the text for reference programs.
            submit: takes each turn to the journal, in order.
            rearm: called when the hub's timer may be due sooner.
            on_hung_up: called when a connection is gone.
        """
        self.door = ClassicDoor()
        self.connections: dict[Visit, Connection] = {}
        """Those that are open."""
        self.seats: dict[Link, Connection] = {}
        """On which connection a seat was given, while that is open."""
        self.entering: dict[Link, Connection] = {}
        """Who waits for the journal to be let in."""
        self.leaving: dict[Link, list[Connection]] = {}
        """Who waits for the journal to be let go."""
        self.slowed: set[ClassicLink] = set()
        """Members with dropped messages, of which they are told soon."""
        self._hub = hub
        self._limits = limits
        self._admission = admission
        self._gatekeeper = gatekeeper
        self._fanout = fanout
        self._randomness = randomness
        self._names = names_in_reference
        self._submit = submit
        self._rearm = rearm
        self._on_hung_up = on_hung_up
        self._stopping = False
        self._loop = asyncio.get_running_loop()

    def restore_link(self, room: KeptRoom, member: KeptMember) -> ClassicLink | None:
        """Make a member's door again; None: it is not one of the classic profile."""
        restored = restore_link(member.door, room=room.name, user=member.name, names=self._names)
        if restored is None:
            return None
        digest, link = restored
        self.door.restored[digest] = link
        return link

    def stop(self) -> None:
        """Finish with every connection as soon as what was asked is answered; tell nobody of dropped messages."""
        self._stopping = True
        for connection in list(self.connections.values()):
            connection.end()

    def abort(self) -> None:
        """Cut off who has not hung up."""
        for connection in list(self.connections.values()):
            connection.abort()

    # --- control connections ------------------------------------------------------------------------------

    def arrive(self, stream: Stream, visit: Visit) -> Connection:
        """Take a new stream; return who hears it."""
        connection = self.connections[visit] = Connection(stream, visit, self._admission, self._limits, self)
        return connection

    def hand_over(self, connection: Connection) -> None:
        """Hear that a connection speaks something else, and is somebody else's."""
        connection.hand_over()
        del self.connections[connection.visit]
        self._on_hung_up()

    def hung_up(self, connection: Connection) -> None:
        """Hear that a connection is gone; a member that kept it open on purpose has not long to stay."""
        del self.connections[connection.visit]
        self._on_hung_up()
        link = connection.link
        if link is None:
            return
        self.seats.pop(link, None)
        if link.member is None:
            return
        if not connection.told:
            self._dismiss(link.member, Reason.LOST)  # it never got its token
        elif connection.attached:
            self._hub.lose(link.member, now_s=self._loop.time())
            self._rearm()

    def asked(self, connection: Connection, request: Request) -> None:
        """Answer a request, at once or when ``authorize`` has made up its mind."""
        match request.operation:
            case Operation.CREATE | Operation.JOIN:
                self._knock(connection, request)
            case Operation.LEAVE:
                self._leave(connection, request)
            case Operation.MEMBERS:
                link = self._seat_of(request)
                if link is None or link.member is None:
                    self._refuse(connection, Refusal.NOT_FOUND)
                    return
                link.member.hear(self._loop.time())
                connection.attached = connection.attached or connection.link is link
                connection.answer([member.name for member in self._hub.members(request.room)])

    def _knock(self, connection: Connection, request: Request) -> None:
        if self._stopping:
            self._refuse(connection, Refusal.UNAVAILABLE)
            return
        host, _ = split_address(connection.stream.remote)
        creates = request.operation is Operation.CREATE
        knock = Knock(request.room, request.user, host, creates, request.password)
        self._gatekeeper.ask(knock, partial(self._decided, connection, request))

    def _decided(self, connection: Connection, request: Request, decision: str | Refusal) -> None:
        """Let somebody in under a name, or say why not."""
        if isinstance(decision, Refusal):
            self._refuse(connection, decision)
        elif not connection.gone:
            self._enter(connection, request, decision)

    def _enter(self, connection: Connection, request: Request, user: str) -> None:
        now_s = self._loop.time()
        link = ClassicLink(
            request.form,
            room=request.room,
            user=user,
            token=make_token(request.form, self._randomness),
            address=connection.stream.remote,
            names=self._names,
        )
        back = self._returning(connection, request, user)
        turn = None if back is None else self._hub.move(back, link)
        if turn is None:
            turn = self._let_in(link, request, user, now_s)
        if isinstance(turn, Refusal):
            self._refuse(connection, turn)
            return
        self.entering[link] = connection
        self._submit(turn)

    def _let_in(self, link: ClassicLink, request: Request, user: str, now_s: float) -> Turn | Refusal:
        """Give somebody new a seat."""
        if request.operation is Operation.JOIN:
            return self._hub.join(link, room=request.room, user=user, now_s=now_s)
        log_id = self._randomness(LOG_ID_SIZE)
        return self._hub.create(link, room=request.room, user=user, now_s=now_s, policy=CLASSIC_POLICY, log_id=log_id)

    def _returning(self, connection: Connection, request: Request, user: str) -> Member | None:
        """Return the member who asks again: by its token, or from the host on which its connection broke."""
        member = self._hub.named(request.room, user)
        if member is None or member.name != user:
            return None
        link = self._hub.link_of(member)
        if not isinstance(link, ClassicLink):
            return None
        if (
            request.token is not None
            and (self.door.links.get(request.token) or self.door.recall(request.token)) is link
        ):
            return member
        same_host = host_key(connection.stream.remote) == host_key(link.address)
        return member if member.lost_s is not None and same_host else None

    def _leave(self, connection: Connection, request: Request) -> None:
        link = self._seat_of(request)
        if link is None or link.member is None:
            self._refuse(connection, Refusal.NOT_FOUND)
            return
        self.leaving.setdefault(link, []).append(connection)
        turn = self._hub.leave(link.member, Reason.BYE, now_s=self._loop.time())
        self._submit(turn)

    def _seat_of(self, request: Request) -> ClassicLink | None:
        """Return the link whose token the request shows, if it is of that room."""
        token = request.token or b""
        link = self.door.links.get(token) or self.door.recall(token)
        return link if link is not None and link.room == request.room.encode() else None

    def _refuse(self, connection: Connection, why: Refusal) -> None:
        if connection.gone:
            return
        late_s = 0.0
        if why in (Refusal.NOT_FOUND, Refusal.NAME_TAKEN):
            late_s = self._admission.fail_join(connection.visit, now_s=self._loop.time())
        connection.refuse(why, REASONS[why], delay_s=late_s)

    # --- datagrams --------------------------------------------------------------------------------------

    def on_batch(self, batch: Batch) -> None:
        """Take datagrams."""
        now_s = self._loop.time()
        intents = self.door.receive_batch(batch, now_s=now_s)
        if not intents:
            return
        turn = self._hub.take(intents, now_s=now_s)
        for member, wait_s in turn.refusals:
            link = self._hub.link_of(member)
            if wait_s and isinstance(link, ClassicLink):
                self._slow(link)
        self._submit(turn)

    def _slow(self, link: ClassicLink) -> None:
        """Note a message dropped over the allowance; the member is told, once for all that come together."""
        link.dropped += 1
        if link not in self.slowed:
            self.slowed.add(link)
            self._loop.call_later(_SLOWED_AFTER_S, self._tell_slowed, link)

    def _tell_slowed(self, link: ClassicLink) -> None:
        self.slowed.discard(link)
        if link.member is not None and not self._stopping:
            self._fanout.send(link.address, slowed(link))

    # --- the hub ----------------------------------------------------------------------------------------

    def release(self, release: Release) -> bool:
        """Take what the hub lets out, if it is for members of ours; return whether it was."""
        match release:
            case Seating(link, _) if isinstance(link, ClassicLink):
                self._seat(link, self.entering.pop(link))
            case Reseating(ClassicLink() as link, ClassicLink() as before):
                self._forget(before)
                self._reseat(link, self.entering.pop(link))
            case Farewell(link, payload, _, _) if isinstance(link, ClassicLink):
                if payload is not None:
                    self._fanout.tell(link, payload)
                self._forget(link)
            case _:
                return False
        return True

    def failed(self, turned_away: Iterable[Link]) -> None:
        """Hear that the journal failed, and whom the hub has turned away."""
        for link in turned_away:
            connection = self.entering.pop(link, None)
            if connection is not None:
                self._refuse(connection, Refusal.UNAVAILABLE)
        for link, several in list(self.leaving.items()):
            member = link.member
            if member is not None and (member.leaving or not member.room.is_open):
                continue  # asked after that batch was taken back
            del self.leaving[link]
            for asked in several:
                self._refuse(asked, Refusal.UNAVAILABLE)

    def _seat(self, link: ClassicLink, connection: Connection) -> None:
        self.door.links[link.token] = link
        if not connection.gone:
            self.seats[link] = connection
            connection.seat(link)
        elif link.member is not None:
            self._loop.call_soon(self._dismiss, link.member, Reason.LOST)  # it hung up before it was answered

    def _reseat(self, link: ClassicLink, connection: Connection) -> None:
        member = link.member
        assert member is not None, "whose door it is"
        if connection.gone:  # it hung up before it was answered, and may ask once more
            self.door.links[link.token] = link
            self._hub.lose(member, now_s=self._loop.time())
            self._rearm()
        else:
            member.hear(self._loop.time())
            self._seat(link, connection)

    def _forget(self, link: ClassicLink) -> None:
        """Take a token out of use and finish with the connections that hang on it."""
        self.door.forget(link)
        self.slowed.discard(link)
        for asked in self.leaving.pop(link, []):
            if not asked.gone:
                asked.answer()
        connection = self.seats.pop(link, None)
        if connection is not None:
            connection.link = None
            connection.end()

    def _dismiss(self, member: Member, reason: Reason = Reason.BYE) -> None:
        self._submit(self._hub.leave(member, reason, now_s=self._loop.time()))
