"""One session after another: dialling, being known, being replaced, falling asleep, closing."""

from __future__ import annotations

import pytest

from ocm.protocol.agent import Answered, Ended, Replaced
from ocm.protocol.agent.agent import PATIENCE_S
from ocm.protocol.agent.dialling import DIAL_AFTER_S
from ocm.protocol.agent.session import SessionState
from ocm.protocol.entry import Kind, Reason
from ocm.protocol.events import Connection, ConnectionChanged, LogChanged, PathChanged, PathKind, RoomClosed
from ocm.protocol.events import Message as Said
from ocm.protocol.memory import Memory, Named
from ocm.protocol.session.path import PathState
from ocm.protocol.wire.classic import Stage
from ocm.protocol.wire.frames import Close, Message, Ping, Pong, Publish
from ocm.protocol.wire.records import (
    Authenticate,
    CloseCode,
    Closing,
    Denied,
    Hello,
    Join,
    Members,
    Op,
    RoomRequest,
    Stored,
)
from tests.protocol.agent.scripted import (
    CLIENT,
    CLIENT_ID,
    KEY,
    ME,
    OTHER_KEY,
    ROOM,
    SECRETS,
    SERVER,
    Client,
    Line,
    change,
    seated,
    text,
    yes,
)


def test_it_is_dialled_when_a_room_is_wanted_and_once() -> None:
    client = Client()
    assert client.agent.next_dial_s() is None
    client.enter()
    assert client.agent.next_dial_s() == client.now_s
    client.enter("another")
    client.agent.dialling(now_s=client.now_s)
    assert client.agent.next_dial_s() is None
    client.enter("a third")
    assert client.agent.next_dial_s() is None


def test_attempts_come_less_and_less_often() -> None:
    client = Client(jitter=0.5)
    client.enter()
    waits: list[float] = []
    for _ in range(10):
        client.agent.dialling(now_s=client.now_s)
        client.agent.dial_failed(now_s=client.now_s)
        due_s = client.agent.next_dial_s()
        assert due_s is not None
        waits.append((due_s - client.now_s) / 1.125)
        client.now_s = due_s
    assert waits == pytest.approx([*DIAL_AFTER_S[1:], 4.0, 4.0])


def test_a_server_that_hangs_up_at_once_is_not_dialled_at_once_for_ever() -> None:
    client = Client()
    line = client.sit()
    waits: list[float] = []
    for _ in range(5):
        line.close(CloseCode.GOING_AWAY)
        due_s = client.agent.next_dial_s()
        assert due_s is not None
        waits.append(due_s - client.now_s)
        client.now_s = due_s
        line = client.connect(resumed=True)
    assert waits == pytest.approx(DIAL_AFTER_S[:5])
    client.pass_s(10.0)
    line.close(CloseCode.IDLE)
    assert client.agent.next_dial_s() == client.now_s


def test_a_server_that_seats_us_and_dies_again_and_again_is_back_soon() -> None:
    client = Client()
    line = client.sit()
    waits: list[float] = []
    for _ in range(8):
        line.lose()
        due_s = client.agent.next_dial_s()
        assert due_s is not None
        waits.append(due_s - client.now_s)
        client.now_s = due_s
        line = client.connect(resumed=True)
        line.seat()
    assert waits == pytest.approx([0.0, 0.25, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5])


@pytest.mark.parametrize("code", [CloseCode.PROTOCOL, CloseCode.FLOOD, CloseCode.KICKED])
def test_after_a_quarrel_it_waits(code: CloseCode) -> None:
    client = Client()
    line = client.sit()
    line.close(code)
    assert client.agent.next_dial_s() == client.now_s + 4.0


def test_after_a_quarrel_while_another_is_dialled_nothing_changes() -> None:
    client = Client()
    line = client.sit()
    client.agent.dialling(now_s=client.now_s)
    line.close(CloseCode.FLOOD)
    assert client.agent.next_dial_s() is None
    client.agent.dial_failed(now_s=client.now_s)
    assert client.agent.next_dial_s() == client.now_s + DIAL_AFTER_S[1]


def test_a_server_that_does_not_recognise_us_in_time_is_given_up() -> None:
    client = Client()
    client.enter()
    line = client.open()
    assert client.agent.next_timeout_s() == client.now_s + PATIENCE_S[0]
    client.pass_s(PATIENCE_S[0] - 1)
    line.greet()
    assert client.agent.next_dial_s() is None
    client.pass_s(1.0)
    assert line.session.is_over
    line.hear_nothing()
    assert client.agent.next_dial_s() == client.now_s + DIAL_AFTER_S[1]
    assert client.agent.next_timeout_s() is None
    line.say_known()
    assert client.agent.connection is Connection.RECONNECTING


def test_who_is_replaced_by_another_program_stops() -> None:
    client = Client()
    line = client.sit()
    line.close(CloseCode.REPLACED)
    assert client.happened(Replaced) == [Replaced()]
    assert client.agent.next_dial_s() is None
    assert client.agent.next_timeout_s() is None
    client.enter("another")
    client.agent.woke(now_s=client.now_s)
    assert client.agent.next_dial_s() is None
    late = client.open()
    assert late.session.is_over


@pytest.mark.parametrize("when", ["dialling", "known", "AUTH.2 is lost"])
def test_who_has_replaced_itself_goes_on(when: str) -> None:
    """The old session's CLOSE may come before AUTH.2 of ours, and AUTH.2 never."""
    client = Client()
    old = client.sit()
    if when == "dialling":
        client.agent.dialling(now_s=client.now_s)
        old.close(CloseCode.REPLACED)
    else:
        new = client.open()
        new.greet()
        if when == "known":
            old.close(CloseCode.REPLACED)
            new.recognize(resumed=True)
            assert client.agent.connection is Connection.CONNECTED
        else:
            assert new.hear(Authenticate).client == CLIENT_ID.hex()
            new.lose()
            old.close(CloseCode.REPLACED)
            assert client.agent.next_dial_s() is not None
            client.connect(resumed=True).close(CloseCode.REPLACED)
            assert client.happened(Replaced) == [Replaced()], "this time it was another"
            return
    assert client.happened(Replaced) == []


def test_a_session_that_was_replaced_says_and_changes_nothing_any_more() -> None:
    client = Client()
    old = client.sit()
    message_id = client.say()
    new = client.connect(resumed=True)
    new.seat(resumed=True)
    assert new.hear_frames(Publish) == [Publish(1, message_id, 0, b"hi")]
    old.close(CloseCode.REPLACED)
    old.say_frames(text(11), yes(message_id))
    old.lose()
    old.hear_nothing()
    assert client.happened(Replaced) == []
    assert not client.agent.is_settled(ROOM)
    assert new.hear_frames(Publish) == [], "the end of the old one is no reason to say it again"
    assert client.agent.connection is Connection.CONNECTED


def pass_on(client: Client) -> tuple[Line, Line]:
    """A session that has the room and a path, and its heir, which the server knows and has given no seat yet."""
    old = client.connect_by_datagram()
    old.traffic.say(text(11))
    old.exchange()
    return old, client.connect(resumed=True)


def test_the_former_session_speaks_for_a_room_until_that_has_a_seat_in_the_new_one() -> None:
    """The new connection may be dead already: who moves every two seconds is not to be silent for it."""
    client = Client()
    old, new = pass_on(client)
    message_id = client.say()
    assert new.hear_frames(Publish) == []
    old.traffic.say(text(12))
    old.exchange()
    assert Publish(1, message_id, 0, b"hi") in old.traffic.frames
    assert [event.text for event in client.read() if isinstance(event, Said)] == ["hello", "hello"]
    asked = new.seat(resumed=True, handle=7, head=12, start=10)
    assert isinstance(asked, Join)
    assert asked.last == 10, "what was not read comes again"
    assert new.hear_frames(Publish) == [Publish(7, message_id, 0, b"hi")]
    assert old.session.is_over
    old.traffic.say(yes(message_id))
    old.exchange()
    assert not client.agent.is_settled(ROOM)
    new.say_frames(yes(message_id, handle=7))
    assert client.agent.is_settled(ROOM)
    assert not any(isinstance(event, ConnectionChanged) for event in client.read())


def test_where_the_new_session_is_lost_before_it_has_a_seat_the_former_goes_on() -> None:
    client = Client()
    old, new = pass_on(client)
    new.lose()
    assert client.agent.connection is Connection.CONNECTED
    assert client.agent.next_dial_s() is not None
    message_id = client.say()
    old.exchange()
    assert Publish(1, message_id, 0, b"hi") in old.traffic.frames
    assert not any(isinstance(event, ConnectionChanged) for event in client.read())
    assert client.agent.fetch_members(ROOM) is not None


def test_a_session_that_came_to_nothing_leaves_the_one_before_it_where_it_was() -> None:
    client = Client()
    old, second = pass_on(client)
    third = client.connect(resumed=True)
    assert second.session.is_over
    message_id = client.say()
    old.exchange()
    assert Publish(1, message_id, 0, b"hi") in old.traffic.frames
    third.seat(resumed=True, handle=7, head=11)
    assert old.session.is_over


def test_a_server_that_has_forgotten_us_has_forgotten_the_former_session_too() -> None:
    client = Client()
    client.enter()
    old = client.connect()
    old.seat()
    client.store()
    new = client.connect(resumed=False)
    assert old.session.is_over
    assert not client.room.is_seated
    new.seat()
    assert client.room.is_seated


def test_the_end_of_the_former_session_is_no_end_of_ours() -> None:
    client = Client()
    old, new = pass_on(client)
    client.say()
    old.close(CloseCode.REPLACED)
    assert client.happened(Replaced) == []
    assert client.agent.connection is Connection.CONNECTED
    assert not client.room.is_seated
    new.seat(resumed=True, handle=7, head=11)
    assert len(new.hear_frames(Publish)) == 1


def test_who_is_replaced_by_another_program_has_no_former_session_either() -> None:
    client = Client()
    old, new = pass_on(client)
    new.close(CloseCode.REPLACED)
    assert client.happened(Replaced) == [Replaced()]
    assert old.session.is_over
    assert client.agent.connection is Connection.RECONNECTING


def test_of_several_rooms_each_moves_when_it_has_its_seat() -> None:
    client = Client()
    client.enter("another")
    client.enter()
    old = client.connect()
    old.seat(handle=1)
    old.seat(handle=2)
    client.store()
    new = client.connect(resumed=True)
    new.seat(handle=1, resumed=True)
    client.agent.post("another", b"over the new one", now_s=client.now_s)
    client.agent.post(ROOM, b"over the old one", now_s=client.now_s)
    client.store()
    assert [one.body for one in new.hear_frames(Publish) if isinstance(one, Publish)] == [b"over the new one"]
    assert [one.body for one in old.hear_frames(Publish) if isinstance(one, Publish)] == [b"over the old one"]
    new.lose()
    assert not client.agent.room("another").is_seated
    assert client.room.is_seated
    assert not old.session.is_over


def test_a_seat_that_was_given_while_the_former_session_read_on_rewinds_nothing() -> None:
    client = Client()
    old, new = pass_on(client)
    old.traffic.say(change(12, Kind.JOIN, b'{"member": 3, "name": "carl"}'), text(13, sender=3))
    old.exchange()
    assert [event.sender.name for event in client.read() if isinstance(event, Said)] == ["bob", "carl"]
    new.seat(resumed=True, handle=7, head=11, start=10)
    assert set(client.room.members) == {1, ME, 3}, "we know better than the answer"
    assert client.room.head == 13
    new.say_frames(text(11, handle=7), text(14, sender=3, handle=7), text(12, handle=7), text(13, handle=7))
    assert [event.sender.name for event in client.read() if isinstance(event, Said)] == ["carl"]
    assert not any(isinstance(event, LogChanged) for event in client.read())


def test_a_seat_in_a_log_that_was_rewound_is_seen_though_a_former_session_seems_to_be_there() -> None:
    client = Client()
    _, new = pass_on(client)
    new.seat(resumed=True, handle=7, head=9, start=9)
    assert LogChanged(rewound=True) in client.read()


def test_nothing_is_asked_of_a_room_between_two_seats_and_a_leave_waits() -> None:
    client = Client()
    old, new = pass_on(client)
    assert client.agent.fetch_members(ROOM) is None
    client.agent.leave(ROOM, now_s=client.now_s)
    new.seat(resumed=True, handle=7, head=11)
    assert new.let_leave().handle == 7
    assert client.happened(Ended) == [Ended(ROOM, None)]
    assert old.session.is_over


def test_answers_in_the_former_session_are_nobodys() -> None:
    client = Client()
    old, new = pass_on(client)
    old.say(Op.JOIN, Stage.COMPLETE, seated(99, handle=5))
    old.say_frames(Message(1, 3, 1, 0, 0, 0, 1, b"history that nobody asked for"))
    assert not old.session.is_over
    new.seat(resumed=True, handle=7, head=11)
    assert client.room.handle == 7


def test_a_room_that_ends_in_the_former_session_is_over() -> None:
    client = Client()
    old, _ = pass_on(client)
    old.traffic.say(change(12, Kind.CLOSED, b'{"reason": "closed by the host"}'))
    old.exchange()
    assert RoomClosed(Reason.ENDED) in client.read()
    assert old.session.is_over
    assert client.agent.connection is Connection.CONNECTED


def test_a_closed_client_says_goodbye_in_all_sessions() -> None:
    client = Client()
    old, new = pass_on(client)
    coming = client.open()
    client.agent.woke(now_s=client.now_s)
    client.agent.moved(now_s=client.now_s)
    client.agent.disown()
    client.agent.close(now_s=client.now_s)
    for line in (old, new, coming):
        line.listen()
        assert line.session.closing is CloseCode.BYE


def test_the_secret_is_said_to_be_stored_when_it_is() -> None:
    client = Client()
    client.enter()
    line = client.connect()
    line.hear(Join)
    client.hand_out()
    line.hear_nothing()
    client.store()
    line.hear(Stored)
    assert client.memory.named == Named(CLIENT_ID, SECRETS[0], line.session.server)
    client.store()
    line.hear_nothing()


def test_of_two_secrets_the_one_of_this_session_counts() -> None:
    client = Client()
    client.enter()
    line = client.connect()
    client.hand_out()
    line.lose()
    line = client.connect(resumed=True, secret=SECRETS[1])
    line.hear(Join)
    client.hand_out()
    client.store(1)
    line.hear_nothing()
    client.store()
    line.hear(Stored)
    line.lose()
    line = client.connect(resumed=True, secret=SECRETS[2])
    client.hand_out()
    line.lose()
    client.store()
    assert client.memory.named is not None
    assert client.memory.named.secret == SECRETS[2]


def test_while_nothing_can_be_stored_the_secret_that_is_stored_is_shown() -> None:
    """The server forgets it once a newer one is shown; after a crash we would be somebody else."""
    client = Client()
    line = client.sit()
    line.lose()
    line = client.connect(resumed=True, secret=SECRETS[1])
    line.lose()
    client.fail_to_store()
    line = client.open()
    line.greet()
    assert line.recognize(resumed=True, secret=SECRETS[2]).secret == SECRETS[0].hex()
    client.store()
    line.lose()
    line = client.open()
    line.greet()
    assert line.recognize(resumed=True).secret == SECRETS[2].hex()


def test_who_is_somebody_new_shows_so_though_that_could_not_be_stored() -> None:
    client = Client()
    line = client.sit()
    line.lose()
    line = client.connect(client=b"n" * 16, secret=SECRETS[1])
    line.lose()
    client.fail_to_store()
    line = client.open()
    line.greet()
    assert line.recognize(client=b"n" * 16, resumed=True).secret == SECRETS[1].hex()


def test_the_secret_goes_to_the_server_that_gave_it_and_to_no_other() -> None:
    client = Client()
    line = client.sit()
    line.lose()
    elsewhere = client.open(key=OTHER_KEY)
    elsewhere.greet()
    asked = elsewhere.hear(Authenticate)
    assert (asked.client, asked.secret) == (None, None)
    elsewhere.lose()
    home = client.open(key=KEY)
    home.greet()
    asked = home.hear(Authenticate)
    assert (asked.client, asked.secret) == (CLIENT_ID.hex(), SECRETS[0].hex())


def test_who_is_remembered_asks_by_name_at_once() -> None:
    before = Client()
    before.sit()
    client = Client(before.memory)
    client.enter()
    line = client.connect(resumed=True)
    assert line.hear(Join).log is not None


def test_secrets_are_in_no_text() -> None:
    client = Client()
    line = client.sit()
    for shown in (repr(client.memory), repr(client.memos), repr(line.session), repr(client.agent)):
        for secret in SECRETS:
            assert repr(secret) not in shown
            assert secret.hex() not in shown


def test_a_closed_client_says_goodbye_and_stays_away() -> None:
    client = Client()
    line = client.sit()
    line.hear(Stored)
    line.say_frames(text(11))
    client.read()
    client.agent.close(now_s=client.now_s)
    client.store()
    assert line.hear(Closing).code == CloseCode.BYE
    assert client.memory.rooms[ROOM].last == 11
    assert client.agent.next_dial_s() is None
    client.agent.close(now_s=client.now_s)
    line.hear_nothing()
    assert client.agent.history(ROOM, first=1, count=1) is None
    line.lose()
    assert client.agent.next_dial_s() is None
    assert not any(isinstance(event, ConnectionChanged) for event in client.read())


def test_a_client_that_is_closed_while_it_dials_takes_no_connection() -> None:
    client = Client()
    client.enter()
    client.agent.dialling(now_s=client.now_s)
    client.agent.close(now_s=client.now_s)
    line = client.open()
    assert line.session.is_over
    line.hear_nothing()
    client.agent.dial_failed(now_s=client.now_s)
    assert client.agent.next_dial_s() is None
    assert client.agent.next_timeout_s() is None


def test_a_client_that_is_closed_while_it_says_hello_says_goodbye() -> None:
    client = Client()
    client.enter()
    line = client.open()
    client.agent.close(now_s=client.now_s)
    line.hear(Hello)
    line.hear(Closing)
    line.lose()
    assert client.agent.next_timeout_s() is None


def test_the_last_word_goes_by_datagram_too() -> None:
    client = Client()
    line = client.connect_by_datagram()
    client.agent.close(now_s=client.now_s)
    ((address, _),) = datagrams = client.agent.datagrams_to_send(now_s=client.now_s)
    assert address == SERVER
    line.take(datagrams)
    assert line.channel is not None
    assert line.channel.farewell == Close(CloseCode.BYE, b"")
    assert client.agent.datagrams_to_send(now_s=client.now_s) == []


def test_the_servers_last_word_by_datagram_ends_the_session() -> None:
    client = Client()
    line = client.connect_by_datagram()
    assert line.channel is not None
    for _, data in line.channel.close(CloseCode.GOING_AWAY, "restarting"):
        client.agent.receive_datagram(data, SERVER, now_s=client.now_s)
    assert line.session.closing is CloseCode.GOING_AWAY
    assert line.session.is_over
    assert client.agent.next_dial_s() == client.now_s
    assert client.agent.datagrams_to_send(now_s=client.now_s) == []


def test_messages_go_by_datagram_where_they_get_through() -> None:
    client = Client()
    line = client.connect_by_datagram()
    assert client.agent.path().kind is PathKind.UDP
    assert [event.path.kind for event in client.read() if isinstance(event, PathChanged)] == [PathKind.UDP]
    message_id = client.say()
    line.exchange()
    assert Publish(1, message_id, 0, b"hi") in line.traffic.frames
    line.traffic.say(yes(message_id), text(11), Message(1, 3, 1, 0, 0, 0, 1, b"history that nobody asked for"))
    line.exchange()
    assert client.agent.is_settled(ROOM)
    assert line.session.next_timeout_s() is not None
    client.pass_s(1.0)
    line.exchange()
    assert any(load for load in line.traffic.told)


def test_a_session_without_its_connection_lives_on_datagrams_and_another_is_dialled() -> None:
    client = Client()
    line = client.connect_by_datagram()
    client.pass_s(10.0)
    line.lose()
    assert client.agent.connection is Connection.CONNECTED
    assert client.agent.next_dial_s() == client.now_s
    client.agent.dialling(now_s=client.now_s)
    client.agent.dial_failed(now_s=client.now_s)
    message_id = client.say()
    line.exchange()
    assert Publish(1, message_id, 0, b"hi") in line.traffic.frames
    assert not any(isinstance(event, ConnectionChanged) for event in client.read())
    due_s = client.agent.next_dial_s()
    assert due_s is not None
    assert due_s > client.now_s
    client.agent.woke(now_s=client.now_s)
    assert client.agent.next_dial_s() == client.now_s
    path = line.session.channel
    assert path is not None
    assert path.path.state is PathState.SUSPECT


def test_who_has_another_address_shows_it_by_datagram() -> None:
    client = Client()
    client.agent.moved(now_s=client.now_s)
    line = client.connect_by_datagram()
    assert client.agent.datagrams_to_send(now_s=client.now_s) == []
    client.agent.moved(now_s=client.now_s)
    assert len(client.agent.datagrams_to_send(now_s=client.now_s)) == 1
    client.agent.handle_timeout(now_s=client.now_s)
    assert Ping() in line.hear_frames(Ping)


def test_datagrams_that_nobody_answers_and_no_connection_are_no_way() -> None:
    """They are sent for want of anything better: nobody is to be told that messages travel."""
    client = Client()
    line = client.connect_by_datagram()
    client.read()
    client.say()
    kinds: list[PathKind] = []
    while not kinds or kinds[-1] is not PathKind.NONE:
        client.pass_s(0.25)
        client.agent.datagrams_to_send(now_s=client.now_s)
        line.hear_frames(Publish)
        kinds += [event.path.kind for event in client.read() if isinstance(event, PathChanged)]
        if line.session.gave_up:
            line.lose()
    assert kinds == [PathKind.TLS, PathKind.NONE]
    assert client.agent.connection is Connection.CONNECTED
    assert client.agent.path().kind is PathKind.NONE


def test_a_session_with_no_way_left_is_over() -> None:
    client = Client()
    line = client.sit()
    number = client.agent.fetch_members(ROOM)
    assert number is not None
    line.hear(Stored)
    line.hear(Members)
    line.lose()
    assert line.session.state is SessionState.OVER
    assert client.happened(Answered) == [Answered(number, lost=True)]
    assert client.read() == [ConnectionChanged(Connection.RECONNECTING, 0)]
    client.agent.dialling(now_s=client.now_s)
    client.agent.dial_failed(now_s=client.now_s)
    line = client.connect(resumed=True)
    assert client.read() == [ConnectionChanged(Connection.RECONNECTING, 1)]
    line.seat(resumed=True)
    assert client.read() == [ConnectionChanged(Connection.CONNECTED, 1)]


def test_a_connection_over_which_nothing_comes_is_given_up() -> None:
    client = Client()
    line = client.connect_by_datagram()
    line.listen()
    line.say_frames(Pong())  # to what was asked along with JOIN
    assert Ping() in line.hear_frames(Ping)
    client.pass_s(14.9)
    line.exchange()
    assert line.hear_frames(Ping) == []
    client.pass_s(0.2)
    line.exchange()
    assert line.hear_frames(Ping) == [Ping()]
    assert client.agent.next_dial_s() is None
    client.pass_s(1.5)
    line.exchange()
    assert client.agent.next_dial_s() == client.now_s, "another is dialled"
    assert not line.session.gave_up
    client.pass_s(3.5)
    line.exchange()
    assert line.session.gave_up
    assert not line.session.is_over


def test_a_refused_name_ends_the_attempt() -> None:
    client = Client()
    client.enter()
    line = client.open()
    line.greet()
    line.say(Op.AUTH, Stage.STATUS, Denied(code=403))
    assert line.session.closing is CloseCode.PROTOCOL
    line.hear(Authenticate)
    assert line.hear(Closing).reason == "the server refuses everybody"
    assert client.agent.next_dial_s() == client.now_s + DIAL_AFTER_S[1]


def test_datagrams_of_nobody_are_dropped() -> None:
    client = Client()
    client.agent.receive_datagram(b"", SERVER, now_s=client.now_s)
    assert client.agent.datagrams_to_send(now_s=client.now_s) == []
    line = client.connect_by_datagram()
    sealed = b"\0\x0e" + b"somebody" + bytes(6) + bytes(17)
    client.agent.receive_datagram(sealed, CLIENT, now_s=client.now_s)
    known = b"\0\x0e" + line.session.connection_id + bytes(6) + bytes(17)
    client.agent.receive_datagram(known, CLIENT, now_s=client.now_s)
    client.agent.close(now_s=client.now_s)
    client.agent.receive_datagram(known, CLIENT, now_s=client.now_s)
    early = Client()
    early.enter()
    coming = early.open()
    early.agent.receive_datagram(
        b"\0\x0e" + coming.session.connection_id + bytes(6) + bytes(17), SERVER, now_s=early.now_s
    )
    assert not coming.session.is_over


def test_nothing_is_asked_of_a_server_that_is_not_reached() -> None:
    client = Client()
    client.enter()
    agent = client.agent
    assert agent.path().kind is PathKind.NONE
    assert agent.fetch_members(ROOM) is None
    assert client.agent.connection is Connection.RECONNECTING
    line = client.connect()
    assert agent.fetch_members(ROOM) is None, "not seated"
    line.seat()
    assert agent.path().kind is PathKind.TLS
    numbers = [agent.end(ROOM) for _ in range(61)]
    assert numbers[-1] is None
    assert None not in numbers[:60]
    assert line.hear(RoomRequest).id == numbers[0]


def test_what_was_remembered_as_another_servers_is_not_shown() -> None:
    memory = Memory(Named(CLIENT_ID, SECRETS[0], b"k" * 32))
    client = Client(memory)
    client.enter()
    line = client.open()
    line.greet()
    assert line.hear(Authenticate).secret is None


def test_what_waits_for_a_session_that_times_out_is_asked_of_the_next() -> None:
    client = Client()
    line = client.connect_by_datagram()
    line.hear(Stored)
    client.enter("another")
    line.deny(480, wait_ms=60_000)
    line.lose()
    for _ in range(60):
        client.agent.datagrams_to_send(now_s=client.now_s)
        client.pass_s(1.0)
    assert line.session.is_over
    assert client.agent.connection is Connection.RECONNECTING
    assert client.connect(resumed=True).hear(Join).room in {ROOM, "another"}
