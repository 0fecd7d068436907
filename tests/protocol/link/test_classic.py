"""The classic door lets in members, their own words and nothing else; each form words an entry its own way."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from hashlib import sha256

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocm.errors import LocalProtocolError
from ocm.protocol.address import Address, make_address
from ocm.protocol.control.packets import Form
from ocm.protocol.entry import Entry, Kind, Reason
from ocm.protocol.limits import DATAGRAM_SIZE_MAX, Limits
from ocm.protocol.link.base import Addressing, Audience
from ocm.protocol.link.classic import (
    REFERENCE_TOKEN_SIZE,
    ClassicDoor,
    ClassicLink,
    DoorCounters,
    OcmForm,
    PlainForm,
    ReferenceForm,
    make_token,
    restore_link,
    slowed,
    text_size_max,
)
from ocm.protocol.link.notices import MemberJoined, Slowed, read_notice, slowed_notice
from ocm.protocol.room import Member, Room
from ocm.protocol.wire.classic import Datagram, read_datagram, write_datagram

TCP = make_address("10.0.0.1", 40000)
UDP = make_address("10.0.0.1", 40001)
TOKEN = b"0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER = b"7c9e6679-7425-40de-944b-e07fc1f90ae7"

short_names = st.text(min_size=1, max_size=63)
entries = st.builds(
    Entry,
    seq=st.just(1),
    sender=st.just(1),
    name=short_names,
    kind=st.sampled_from(Kind),
    body=st.sampled_from(list(Reason)).map(str.encode),
    time_ms=st.just(0),
    plaintext=st.booleans(),
)
forms = st.sampled_from([OcmForm(b"room1"), PlainForm(), ReferenceForm(b"room1"), ReferenceForm(b"room1", names=True)])


def text_entry(text: bytes, *, name: str = "alice", plaintext: bool = True) -> Entry:
    return Entry(1, 1, name, Kind.TEXT, text, 0, plaintext)


def end_entry(kind: Kind, reason: Reason | None = None) -> Entry:
    return Entry(1, 1, "" if kind is Kind.CLOSED else "alice", kind, (reason or "").encode(), 0)


def make_link(kind: Form, *, room: str = "room1", token: bytes = TOKEN, address: Address = TCP) -> ClassicLink:
    return ClassicLink(kind, room=room, user="alice", token=token, address=address)


def make_door(kind: Form = Form.OCM, *, address: Address = TCP) -> tuple[ClassicDoor, ClassicLink, Member]:
    """Make a door with a member of room1 (``TOKEN``), and another room's member at the same host (``OTHER``)."""
    link, other = make_link(kind, address=address), make_link(kind, room="room2", token=OTHER, address=address)
    members: list[Member] = []
    for number, one in enumerate((link, other)):
        member = Room(one.room.decode(), number, Limits()).admit("alice", plaintext=True, now_s=0.0)
        assert isinstance(member, Member)
        one.member = member
        members.append(member)
    return ClassicDoor({TOKEN: link, OTHER: other}), link, members[0]


def said(text: bytes, *, room: bytes = b"room1", token: bytes = TOKEN) -> bytes:
    return write_datagram(room, token, text)


# --- down: golden bytes -------------------------------------------------------------------------------


def test_our_own_form_names_the_sender_in_the_second_field() -> None:
    assert OcmForm(b"room1").encode(text_entry(b"hello")) == b"\x05\x05room1alicehello"


def test_the_plain_form_is_a_line_of_text() -> None:
    assert PlainForm().encode(text_entry(b"hello")) == b"alice: hello"


def test_the_reference_form_gives_each_receiver_its_own_token() -> None:
    for token in (TOKEN, OTHER):
        link = make_link(Form.REFERENCE, token=token)
        payload = link.form.encode(text_entry(b"hello"))
        assert payload == b"hello"
        assert link.finish(payload) == b"\x05\x24room1" + token + b"hello"


def test_the_reference_form_names_a_modern_sender_or_everybody_when_told_to() -> None:
    bare, named = ReferenceForm(b"room1"), ReferenceForm(b"room1", names=True)
    assert bare.encode(text_entry(b"hello", plaintext=False)) == b"alice: hello"
    assert named.encode(text_entry(b"hello", plaintext=False)) == b"alice: hello"
    assert named.encode(text_entry(b"hello")) == b"alice: hello"
    link = ClassicLink(Form.REFERENCE, room="room1", user="bob", token=TOKEN, address=TCP, names=True)
    assert link.form == named


@pytest.mark.parametrize(
    ("entry", "ocm", "plain", "reference"),
    [
        (end_entry(Kind.JOIN), b"\x05\x00room1alice joined", None, None),
        (end_entry(Kind.LEAVE, Reason.BYE), b"\x05\x00room1alice left", None, None),
        (end_entry(Kind.LEAVE, Reason.IDLE), b"\x05\x00room1alice left: silent too long", None, None),
        (
            end_entry(Kind.CLOSED, Reason.HOST_LEFT),
            b"\x05\x00room1room closed: the host has gone",
            b"* room closed, the host has gone",
            b"* room closed: the host has gone",
        ),
    ],
)
def test_what_the_server_says(entry: Entry, ocm: bytes, plain: bytes | None, reference: bytes | None) -> None:
    assert OcmForm(b"room1").encode(entry) == ocm
    assert PlainForm().encode(entry) == plain
    assert ReferenceForm(b"room1").encode(entry) == reference


def test_who_is_removed_is_told_and_who_leaves_is_not() -> None:
    removed, left = end_entry(Kind.LEAVE, Reason.KICKED), end_entry(Kind.LEAVE, Reason.BYE)
    assert OcmForm(b"room1").encode_farewell(removed) == b"\x05\x00room1you were removed: removed by the server"
    assert PlainForm().encode_farewell(removed) == b"* you were removed, removed by the server"
    assert ReferenceForm(b"room1").encode_farewell(removed) == b"* you were removed: removed by the server"
    for form in (OcmForm(b"room1"), PlainForm(), ReferenceForm(b"room1")):
        assert form.encode_farewell(left) is None


@pytest.mark.parametrize(
    ("kind", "datagram"),
    [
        (Form.OCM, b"\x05\x00room1you send too fast: 7 messages were dropped"),
        (Form.PLAIN, b"* you send too fast, 7 messages were dropped"),
        (Form.REFERENCE, b"\x05\x24room1" + TOKEN + b"* you send too fast: 7 messages were dropped"),
    ],
)
def test_a_member_is_told_how_many_messages_were_dropped_since(kind: Form, datagram: bytes) -> None:
    link = make_link(kind)
    link.dropped = 7
    assert slowed(link) == datagram
    assert link.dropped == 0


def test_a_classic_link_takes_no_entries() -> None:
    with pytest.raises(LocalProtocolError):
        make_link(Form.OCM).take(text_entry(b"hello"))


# --- down: nobody speaks for the server ---------------------------------------------------------------


@given(entries)
def test_in_our_own_form_an_empty_name_is_the_server_and_nobody_else(entry: Entry) -> None:
    data = OcmForm(b"room1").encode(entry)
    assert data is not None
    assert (Datagram.decode(data).token == b"") is (entry.kind is not Kind.TEXT)


@given(entries, st.text())
def test_in_the_plain_form_a_colon_and_a_space_are_a_member_and_nobody_else(entry: Entry, text: str) -> None:
    form = PlainForm()
    for data in (form.encode(entry), form.encode_farewell(entry), form.encode_notice(text)):
        if data is not None and entry.kind is not Kind.TEXT:
            assert data.startswith(b"* ")
            assert b": " not in data
    assert b": " in (form.encode(text_entry(text.encode(), name=entry.name)) or b"")


@given(short_names)
def test_a_notice_in_our_own_form_is_read_back(name: str) -> None:
    data = OcmForm(b"room1").encode(Entry(1, 1, name, Kind.JOIN, b"", 0)) or b""
    assert read_notice(Datagram.decode(data).text.decode()) == MemberJoined(name)
    slow = OcmForm(b"room1").encode_notice(slowed_notice(5)) or b""
    assert read_notice(Datagram.decode(slow).text.decode()) == Slowed(5)


# --- down: sizes --------------------------------------------------------------------------------------

largest = st.text(min_size=1).filter(lambda text: len(text.encode()) <= 255)
wide = st.one_of(largest, st.just("r" * 255), st.just("\U0001f600" * 63), st.just("x"))


@given(wide, wide, st.booleans())
@example("r" * 255, "u" * 255, True)
@example("r", "u", False)
def test_any_accepted_text_fits_one_datagram_in_every_form(room: str, user: str, names: bool) -> None:
    size = text_size_max(room, user, names=names)
    sender = ClassicLink(Form.OCM, room=room, user=user, token=b"t", address=TCP, names=names)
    assert sender.text_size_max == size
    entry = text_entry(b"x" * size, name=user)
    sizes: list[int] = []
    for kind in Form:
        token = b"t" * REFERENCE_TOKEN_SIZE
        link = ClassicLink(kind, room=room, user="bob", token=token, address=TCP, names=names)
        payload = link.form.encode(entry)
        assert payload is not None
        sizes.append(len(link.finish(payload) if link.form.addressing is Addressing.EACH else payload))
    assert max(sizes) <= DATAGRAM_SIZE_MAX
    assert max(sizes) >= DATAGRAM_SIZE_MAX - 2  # no room is given away


@given(wide, wide, st.booleans())
def test_a_member_without_a_socket_fits_too_when_names_are_counted(room: str, user: str, names: bool) -> None:
    entry = text_entry(b"x" * text_size_max(room, user, names=True), name=user, plaintext=False)
    link = ClassicLink(
        Form.REFERENCE, room=room, user="bob", token=b"t" * REFERENCE_TOKEN_SIZE, address=TCP, names=names
    )
    assert len(link.finish(link.form.encode(entry) or b"")) == DATAGRAM_SIZE_MAX


@given(wide, wide, st.sampled_from(Reason), forms)
def test_notices_fit_too(room: str, user: str, reason: Reason, form: OcmForm | PlainForm | ReferenceForm) -> None:
    entry = Entry(1, 1, user, Kind.LEAVE, reason.encode(), 0)
    for data in (form.encode(entry), form.encode_farewell(entry)):
        assert len(data or b"") <= DATAGRAM_SIZE_MAX - 2 - 255 - REFERENCE_TOKEN_SIZE


# --- up -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Form)
def test_a_member_is_heard(kind: Form) -> None:
    door, _, member = make_door(kind)
    intents = door.receive_batch([(said(b"hello"), UDP), (said("はい".encode()), UDP)], now_s=1.0)
    assert [(intent.member, intent.body, intent.kind) for intent in intents] == [
        (member, b"hello", Kind.TEXT),
        (member, "はい".encode(), Kind.TEXT),
    ]
    assert door.counters == DoorCounters()


@pytest.mark.parametrize(
    ("datagram", "counters"),
    [
        (said(b"hello", token=b"guessed"), DoorCounters(unknown_token=1)),
        (said(b"hello", token=b""), DoorCounters(unknown_token=1)),
        (said(b"hello", token=OTHER), DoorCounters(wrong_room=1)),
        (said(b"hello", room=b"room2"), DoorCounters(wrong_room=1)),
        (said(b"hello", room=b""), DoorCounters(wrong_room=1)),
        (said(b"\xff\xfe"), DoorCounters(not_text=1)),
        (said("é".encode()[:1]), DoorCounters(not_text=1)),
        (said(b"\xed\xa0\x80"), DoorCounters(not_text=1)),
        (said(b"x" * 4096), DoorCounters(oversized=1)),
        (b"", DoorCounters(malformed=1)),
        (b"\x05", DoorCounters(malformed=1)),
        (b"\xff\xffroom1" + TOKEN, DoorCounters(malformed=1)),
        (said(b"")[:-1], DoorCounters(malformed=1)),
    ],
)
def test_what_is_not_a_members_word_is_counted_and_dropped(datagram: bytes, counters: DoorCounters) -> None:
    door, _, _ = make_door()
    assert door.receive_batch([(datagram, TCP)], now_s=1.0) == []
    assert door.counters == counters


@pytest.mark.parametrize("size", [0, 1])
def test_the_longest_text_passes_and_one_byte_more_does_not(size: int) -> None:
    door, link, _ = make_door()
    intents = door.receive_batch([(said(b"x" * (link.text_size_max + size)), TCP)], now_s=1.0)
    assert (len(intents), door.counters.oversized) == (1 - size, size)


def test_the_token_of_somebody_who_is_gone_opens_nothing() -> None:
    door, link, _ = make_door()
    link.member = None
    assert door.receive_batch([(said(b"hello"), TCP)], now_s=1.0) == []
    assert door.counters == DoorCounters(unknown_token=1)


def test_a_drop_does_not_take_its_batch_along() -> None:
    door, _, _ = make_door()
    batch = [(said(b"one"), TCP), (b"", TCP), (said(b"\xff"), TCP), (said(b"two"), TCP)]
    assert [intent.body for intent in door.receive_batch(batch, now_s=1.0)] == [b"one", b"two"]


# --- up: addresses ------------------------------------------------------------------------------------


def test_the_first_datagram_of_the_host_shows_the_address_then_it_is_frozen() -> None:
    door, link, _ = make_door()
    assert link.address == TCP
    assert len(door.receive_batch([(said(b"one"), UDP)], now_s=1.0)) == 1
    assert link.address == UDP
    for stranger in (TCP, make_address("10.0.0.1", 1), make_address("10.0.0.2", 40001)):
        assert door.receive_batch([(said(b"two"), stranger)], now_s=1.0) == []
    assert link.address == UDP
    assert door.counters == DoorCounters(wrong_address=3)
    assert len(door.receive_batch([(said(b"three"), UDP)], now_s=1.0)) == 1


def test_another_host_with_the_right_token_takes_nothing_over() -> None:
    door, link, member = make_door()
    assert door.receive_batch([(said(b"hello"), make_address("10.0.0.2", 40000))], now_s=1.0) == []
    assert door.counters == DoorCounters(wrong_address=1)
    assert link.address == TCP
    assert not link.bound
    assert member.deadline_s(Limits()) == Limits().idle_timeout_s
    assert len(door.receive_batch([(said(b"hello"), UDP)], now_s=1.0)) == 1


def test_a_refused_datagram_freezes_no_address() -> None:
    door, link, _ = make_door()
    door.receive_batch([(said(b"hello", room=b"room2"), UDP), (said(b"hello", token=b"?"), UDP)], now_s=1.0)
    assert not link.bound
    assert link.address == TCP


LOOPBACK = ["127.0.0.1", "127.0.1.1", "::1", "::ffff:127.0.0.1", "::ffff:127.9.9.9"]


@pytest.mark.parametrize("tcp", LOOPBACK)
@pytest.mark.parametrize("udp", LOOPBACK)
def test_all_loopback_addresses_are_one_host(tcp: str, udp: str) -> None:
    door, link, _ = make_door(address=make_address(tcp, 40000))
    assert len(door.receive_batch([(said(b"hello"), make_address(udp, 9))], now_s=1.0)) == 1
    assert link.address == make_address(udp, 9)


def test_an_ipv4_address_in_ipv6_clothes_is_the_same_host() -> None:
    door, link, _ = make_door(address=make_address("::ffff:10.0.0.1", 40000))
    assert len(door.receive_batch([(said(b"hello"), UDP)], now_s=1.0)) == 1
    assert link.address == UDP


def test_a_datagram_without_text_shows_the_address_and_keeps_alive() -> None:
    door, link, member = make_door()
    member.lost_s = 0.5
    assert door.receive_batch([(said(b""), UDP)], now_s=7.0) == []
    assert door.counters == DoorCounters()
    assert link.address == UDP
    assert member.lost_s is None
    assert member.deadline_s(Limits()) == 7.0 + Limits().idle_timeout_s


@pytest.mark.parametrize(("address", "kept"), [(TCP, True), (UDP, False), (make_address("10.0.0.2", 1), True)])
def test_what_was_prepared_is_forgotten_when_the_address_changes(address: Address, kept: bool) -> None:
    link = make_link(Form.OCM)
    audience = Audience(link.form)
    audience.add(link)
    audience.prepared = "addresses"
    link.bind(address)
    assert (audience.prepared is not None) is kept


def test_a_link_that_is_in_no_audience_yet_takes_its_address() -> None:
    link = make_link(Form.OCM)
    assert link.bind(UDP)
    assert not link.bind(TCP)
    assert link.address == UDP


# --- up: any bytes ------------------------------------------------------------------------------------


def cut(data: bytes) -> st.SearchStrategy[bytes]:
    return st.integers(0, len(data)).map(lambda end: data[:end])


hostile = st.one_of(
    st.binary(max_size=80),
    st.builds(
        write_datagram,
        st.sampled_from([b"room1", b"room2", b""]),
        st.sampled_from([TOKEN, OTHER, b"guessed", b""]),
        st.one_of(st.binary(max_size=40), st.just(b""), st.just(b"x" * 4090), st.text(max_size=20).map(str.encode)),
    ).flatmap(lambda data: st.one_of(st.just(data), cut(data))),
)
sources = st.sampled_from([TCP, UDP, make_address("10.0.0.2", 1), make_address("::1", 1), make_address("fe80::1%3", 1)])


@given(st.lists(st.tuples(hostile, sources), max_size=12))
def test_any_datagrams_are_heard_or_counted_and_raise_nothing(batch: list[tuple[bytes, Address]]) -> None:
    door, link, member = make_door()
    intents = door.receive_batch(batch, now_s=1.0)
    counters = door.counters
    dropped = sum(getattr(counters, name) for name in DoorCounters.__slots__)
    silent = len(batch) - dropped - len(intents)
    texts = [values[2] for data, _ in batch if (values := read_datagram(data)) is not None]
    assert 0 <= silent <= texts.count(b"")
    assert link.address in (TCP, UDP)
    for intent in intents:
        assert intent.body
        assert intent.body.decode().encode() == intent.body
        assert len(intent.body) <= link.text_size_max
        assert intent.member is member or intent.member.room.name == "room2"


@given(st.lists(st.tuples(hostile, sources), max_size=12), st.integers(0, 12))
def test_it_makes_no_difference_how_datagrams_are_batched(batch: list[tuple[bytes, Address]], at: int) -> None:
    receive: Callable[[ClassicDoor, list[tuple[bytes, Address]]], list[bytes]] = lambda door, part: [  # noqa: E731
        intent.body for intent in door.receive_batch(part, now_s=1.0)
    ]
    (whole, _, _), (parts, _, _) = make_door(), make_door()
    assert receive(whole, batch) == receive(parts, batch[:at]) + receive(parts, batch[at:])
    assert whole.counters == parts.counters


def test_what_stands_before_a_text_is_the_same_however_many_names_were_seen() -> None:
    form = OcmForm(b"room1")
    for number in range(3000):
        name = f"user{number % 1500}"
        entry = Entry(1, 1, name, Kind.TEXT, b"hello", 0)
        assert form.encode(entry) == write_datagram(b"room1", name.encode(), b"hello")


# --- after a restart ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Form)
@pytest.mark.parametrize("address", [TCP, make_address("2001:db8::1", 40000)])
def test_a_door_is_made_again_from_what_a_journal_keeps_of_it(kind: Form, address: Address) -> None:
    link = ClassicLink(kind, room="lobby", user="alice", token=TOKEN, address=address)
    memo = link.memo()
    assert TOKEN not in memo
    restored = restore_link(memo, room="lobby", user="alice", names=False)
    assert restored is not None
    digest, again = restored
    assert digest == sha256(TOKEN).digest()
    assert (again.kind, again.form, again.address, again.room) == (kind, link.form, address, b"lobby")
    assert (again.bound, again.token, again.text_size_max) == (False, b"", link.text_size_max)


def test_a_door_made_again_is_found_whichever_of_our_addresses_its_member_reaches() -> None:
    path = TCP + bytes([192, 0, 2, 7])
    link = ClassicLink(Form.OCM, room="lobby", user="alice", token=TOKEN, address=TCP)
    assert link.bind(path)
    restored = restore_link(link.memo(), room="lobby", user="alice", names=False)
    assert restored is not None
    _, again = restored
    assert again.address == TCP
    assert again.bind(path)
    assert again.address == path


@pytest.mark.parametrize(
    "memo", [b"", b"1", b"2" + bytes(39), b"1" + bytes(34), b"1\x00" + bytes(39), b"1\x03" + bytes(38)]
)
def test_what_is_no_memo_of_a_classic_door_makes_none(memo: bytes) -> None:
    assert restore_link(memo, room="lobby", user="alice", names=False) is None


def test_a_token_is_recalled_when_it_is_shown_and_opens_to_its_host_alone() -> None:
    restored = restore_link(
        ClassicLink(Form.OCM, room="lobby", user="alice", token=TOKEN, address=TCP).memo(),
        room="lobby",
        user="alice",
        names=False,
    )
    assert restored is not None
    digest, link = restored
    link.member = Member(Room("lobby", 1, Limits()), 1, "alice", plaintext=True, now_s=0.0)
    door = ClassicDoor(restored={digest: link})
    said = write_datagram(b"lobby", TOKEN, b"hello")
    elsewhere = make_address("10.0.0.2", 40001)
    assert door.receive_batch([(write_datagram(b"lobby", OTHER, b"?"), UDP), (said, elsewhere)], now_s=1.0) == []
    assert (door.counters.unknown_token, door.counters.wrong_address) == (1, 1)
    [intent] = door.receive_batch([(said, UDP)], now_s=1.0)
    assert intent.member is link.member
    assert (link.token, link.address, door.restored) == (TOKEN, UDP, {})
    door.forget(link)
    assert door.links == {}
    assert door.receive_batch([(said, UDP)], now_s=1.0) == []


def test_a_door_that_was_not_recalled_can_be_forgotten() -> None:
    one, other = (ClassicLink(Form.OCM, room="lobby", user="a", token=b"", address=TCP) for _ in range(2))
    door = ClassicDoor(restored={b"one": one, b"other": other})
    door.forget(one)
    assert door.restored == {b"other": other}


# --- tokens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "token"),
    [
        (Form.OCM, bytes(range(32)).hex().encode()),
        (Form.PLAIN, bytes(range(16)).hex().encode()),
        (Form.REFERENCE, b"00010203-0405-4607-8809-0a0b0c0d0e0f"),
    ],
)
def test_a_token_is_spelled_as_the_form_spells_it(form: Form, token: bytes) -> None:
    assert make_token(form, lambda size: bytes(range(size))) == token


@given(st.binary(min_size=16, max_size=16))
def test_a_token_of_the_reference_form_is_a_random_uuid(drawn: bytes) -> None:
    token = make_token(Form.REFERENCE, lambda _: drawn)
    made = uuid.UUID(token.decode())
    assert (made.version, made.variant, len(token)) == (4, uuid.RFC_4122, REFERENCE_TOKEN_SIZE)
    kept = ~(0xF000 << 64 | 0xC000 << 48)
    assert made.int & kept == int.from_bytes(drawn, "big") & kept, "all other bits are the random ones"
