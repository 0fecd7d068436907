"""The client's end of a classic door: it says what the server's end reads, and hears what that writes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.protocol.address import make_address
from ocm.protocol.control.packets import Form
from ocm.protocol.entry import Entry, Kind, Reason
from ocm.protocol.limits import DATAGRAM_SIZE_MAX, Limits
from ocm.protocol.link.base import Addressing
from ocm.protocol.link.classic import ClassicDoor, ClassicLink, text_size_max
from ocm.protocol.link.notices import Announcement, MemberJoined, MemberLeft, Removed, RoomClosed, Slowed, slowed_notice
from ocm.protocol.link.voice import Heard, Said, Voice
from ocm.protocol.room import Member, Room
from tests.vectors import classic

HERE = make_address("10.0.0.1", 40_000)
forms = st.sampled_from(Form)
names = st.text(min_size=1, max_size=20)
tokens = st.binary(min_size=1, max_size=255)


def pair(form: Form, *, room: str = "room1", user: str = "bob", token: bytes = b"token") -> tuple[Voice, ClassicLink]:
    """Return both ends of one member's door."""
    link = ClassicLink(form, room=room, user=user, token=token, address=HERE)
    link.member = Member(Room(room, 1, Limits()), 1, user, plaintext=True, now_s=0.0)
    return Voice(form, room, user, token), link


def down(link: ClassicLink, entry: Entry) -> bytes:
    """Word an entry as the server does for this member."""
    payload = link.form.encode(entry)
    assert payload is not None
    return link.finish(payload) if link.form.addressing is Addressing.EACH else payload


def entry(kind: Kind, body: str, name: str = "alice") -> Entry:
    return Entry(1, 2, name, kind, body.encode(), 0)


@given(form=forms, room=names, user=names, token=tokens, data=st.data())
def test_the_server_reads_what_we_say(form: Form, room: str, user: str, token: bytes, data: st.DataObject) -> None:
    voice, link = pair(form, room=room, user=user, token=token)
    text = data.draw(st.text(min_size=1, max_size=200))
    door = ClassicDoor({token: link})
    (intent,) = door.receive_batch([(voice.encode(text.encode()), HERE)], now_s=1.0)
    assert (intent.member, intent.body.decode()) == (link.member, text)


@given(room=names, user=names, token=tokens, form=forms)
def test_the_longest_text_we_may_say_fits_both_ways(room: str, user: str, token: bytes, form: Form) -> None:
    voice, _ = pair(form, room=room, user=user, token=token)
    assert len(voice.encode(b"x" * voice.text_size_max)) <= DATAGRAM_SIZE_MAX
    assert voice.text_size_max <= text_size_max(room, user)
    for other in Form:
        _, link = pair(other, room=room, token=b"t" * 36)
        assert len(down(link, entry(Kind.TEXT, "x" * voice.text_size_max, user))) <= DATAGRAM_SIZE_MAX


@given(room=names, name=names, text=st.text(max_size=100))
def test_we_hear_what_the_server_says_and_who_said_it(room: str, name: str, text: str) -> None:
    voice, link = pair(Form.OCM, room=room)
    assert voice.decode(down(link, entry(Kind.TEXT, text, name))) == Said(name, text)


@given(room=names, text=st.text(max_size=100))
def test_the_reference_form_does_not_say_who(room: str, text: str) -> None:
    voice, link = pair(Form.REFERENCE, room=room)
    assert voice.decode(down(link, entry(Kind.TEXT, text))) == Said(None, text)


@given(name=names.filter(lambda name: ": " not in name + ":"), text=st.text(max_size=100))
def test_the_plain_form_says_who_in_the_text(name: str, text: str) -> None:
    voice, link = pair(Form.PLAIN)
    assert voice.decode(down(link, entry(Kind.TEXT, text, name))) == Said(name, text)


REASONS = [reason for reason in Reason if reason is not Reason.BYE]
NOTICES: list[tuple[Callable[[ClassicLink], bytes], Heard]] = [
    (lambda link: link.notice(slowed_notice(7)), Slowed(7)),
    *((lambda link, why=why: down(link, entry(Kind.CLOSED, why)), RoomClosed(why)) for why in REASONS),
    *(
        (lambda link, why=why: link.form.encode_farewell(entry(Kind.LEAVE, why)) or b"", Removed(why))
        for why in REASONS
    ),
]


@pytest.mark.parametrize("form", [Form.OCM, Form.PLAIN])
@pytest.mark.parametrize(("words", "heard"), NOTICES, ids=[repr(heard) for _, heard in NOTICES])
def test_we_understand_what_the_server_says_in_its_own_name(
    form: Form, words: Callable[[ClassicLink], bytes], heard: Heard
) -> None:
    voice, link = pair(form)
    assert voice.decode(words(link)) == heard


@pytest.mark.parametrize("line", ["* ", "* be nice", "* room closed, left", "* bob joined", "room closed, left"])
def test_a_plain_line_that_is_no_word_of_the_server_is_shown_as_it_is(line: str) -> None:
    voice, _ = pair(Form.PLAIN)
    assert voice.decode(line.encode()) == Said(None, line)


def test_comings_and_goings_are_told_in_our_own_form() -> None:
    voice, link = pair(Form.OCM)
    assert voice.decode(down(link, entry(Kind.JOIN, ""))) == MemberJoined("alice")
    assert voice.decode(down(link, entry(Kind.LEAVE, Reason.BYE))) == MemberLeft("alice", Reason.BYE)
    assert voice.decode(link.notice("be nice")) == Announcement("be nice")


@given(name=names, text=st.text(max_size=60) | st.sampled_from(["room closed: the host has gone", "you were removed"]))
def test_no_member_of_our_server_can_speak_in_its_name(name: str, text: str) -> None:
    for form in (Form.OCM, Form.PLAIN):
        voice, link = pair(form)
        assert isinstance(voice.decode(down(link, entry(Kind.TEXT, text, name))), Said)


@given(text=st.text(max_size=60) | st.sampled_from(["* room closed: the host has gone", "* bob joined", "bob joined"]))
def test_where_anybody_can_say_anything_no_text_closes_the_room(text: str) -> None:
    voice, link = pair(Form.REFERENCE)
    assert isinstance(voice.decode(down(link, entry(Kind.TEXT, text))), Said)


@given(form=forms, data=st.binary(max_size=100))
def test_any_bytes_are_passed_over_or_mean_something(form: Form, data: bytes) -> None:
    voice, _ = pair(form)
    heard = voice.decode(data)
    assert heard == voice.decode(data)
    if isinstance(heard, Said):
        heard.text.encode()
        (heard.name or "").encode()


def test_what_is_meant_for_another_is_passed_over() -> None:
    for form in (Form.OCM, Form.REFERENCE):
        voice, _ = pair(form)
        _, elsewhere = pair(form, room="room2")
        assert voice.decode(down(elsewhere, entry(Kind.TEXT, "hello"))) is None
        assert voice.decode(b"\x09\x09short") is None
    voice, _ = pair(Form.REFERENCE, token=b"mine")
    _, other = pair(Form.REFERENCE, token=b"another's")
    assert voice.decode(down(other, entry(Kind.TEXT, "hello"))) is None


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    voice, _ = pair(Form.OCM)
    assert voice.decode(b"\x05\x02room1\xff\xfehi\xff") == Said("\ufffd\ufffd", "hi\ufffd")
    plain, _ = pair(Form.PLAIN)
    assert plain.decode(b"bob: \xff") == Said("bob", "\ufffd")


def test_only_the_reference_server_sends_our_own_words_back() -> None:
    assert [form for form in Form if pair(form)[0].echoes] == [Form.REFERENCE]


def test_the_golden_datagrams_are_heard() -> None:
    assert isinstance(Voice(Form.OCM, "room1", "bob", b"t").decode(classic.OCM_DOWN), Said)
    assert isinstance(Voice(Form.PLAIN, "room1", "bob", b"t").decode(classic.PLAIN_DOWN), Said)
    heard = Voice(Form.REFERENCE, "room1", "bob", classic.TOKEN_REFERENCE).decode(classic.REFERENCE_DOWN)
    assert isinstance(heard, Said)


def test_a_voice_shows_no_token() -> None:
    assert "s3cret" not in repr(Voice(Form.OCM, "room1", "bob", b"s3cret"))
