"""Rooms of both profiles: who may enter, what each hears of the other, and what crosses the network unsealed."""

from __future__ import annotations

import json

import pytest

from ocm.protocol.control.packets import Form
from ocm.protocol.entry import CLASSIC_POLICY, Kind, Policy, Reason, Refusal
from ocm.protocol.hub import Turn
from ocm.protocol.link.classic import ClassicLink
from ocm.protocol.wire.classic import write_datagram
from ocm.protocol.wire.frames import Message, Publish
from ocm.protocol.wire.records import Done, Kick, MemberPage, Members, Op, Raise, RoomRequest, Seated
from tests.protocol.desk import Client, Desk, denied, known, seat


def classic(desk: Desk, user: str, form: Form = Form.OCM, *, create: bool = False) -> ClassicLink:
    link = desk.classic_member("lobby", user, form=form, create=create)
    assert isinstance(link, ClassicLink), link
    desk.classic[link] = []
    return link


def raise_access(client: Client) -> None:
    client.ask(Op.RAISE, Raise, handle=client.handles["lobby"], access="modern")


def test_to_a_classic_program_a_modern_room_does_not_exist() -> None:
    desk = Desk()
    seat(desk, "lobby", "alice")
    assert desk.classic_member("lobby", "bobby") is Refusal.NOT_FOUND
    assert desk.classic_member("other", "bobby") is Refusal.NOT_FOUND
    assert desk.classic_member("lobby", "alice") is Refusal.NOT_FOUND, "nor do the names in it"


def test_what_a_classic_program_makes_is_mixed() -> None:
    desk = Desk()
    classic(desk, "alice", create=True)
    bob = known(desk, "bobby")
    seated = bob.join("lobby")
    assert isinstance(seated, Seated)
    assert (seated.access, seated.lifetime, seated.host) == ("mixed", "close", 1)
    assert Policy(CLASSIC_POLICY.access) == CLASSIC_POLICY


@pytest.mark.parametrize(
    ("form", "heard"),
    [
        (Form.OCM, write_datagram(b"lobby", b"alice", b"hello")),
        (Form.PLAIN, b"alice: hello"),
        (Form.REFERENCE, None),
    ],
)
def test_a_classic_member_hears_each_modern_message_once_and_nobodys_token(form: Form, heard: bytes | None) -> None:
    desk = Desk()
    [alice] = seat(desk, "lobby", "alice", access="mixed")
    links = [classic(desk, user, form) for user in ("bobby", "carol")]
    tokens = [link.token for link in links]
    for _ in range(3):
        alice.say(Publish(alice.handles["lobby"], 1, 0, b"hello"))
    for link in links:
        expected = heard or write_datagram(b"lobby", link.token, b"alice: hello")
        said = [data for data in desk.classic[link] if b"joined" not in data]
        assert said == [expected]
        others = [token for token in tokens if token != link.token]
        assert not any(token in data for token in others for data in desk.classic[link])


def test_modern_members_see_what_came_in_plaintext_and_who_speaks_so() -> None:
    desk = Desk()
    [alice] = seat(desk, "lobby", "alice", access="mixed")
    link = classic(desk, "bobby")
    desk.say_classic(link, "hello")
    join, text = alice.heard()
    assert json.loads(join.body) == {"member": 2, "name": "bobby", "flags": 1}
    assert text == Message(1, 3, 2, 0, 1_700_001_000_000, 0, 2, b"hello")
    page = alice.ask(Op.MEMBERS, Members, handle=alice.handles["lobby"])
    assert isinstance(page, MemberPage)
    assert [(row.name, row.flags) for row in page.members] == [("alice", 0), ("bobby", 1)]


def test_all_hear_all_in_one_order() -> None:
    desk = Desk()
    alice, carol = seat(desk, "lobby", "alice", "carol", access="mixed")
    link = classic(desk, "bobby")
    for number in range(1, 4):
        alice.say(Publish(alice.handles["lobby"], number, 0, b"a%d" % number))
        desk.say_classic(link, f"b{number}")
    assert carol.texts() == ["a1", "b1", "a2", "b2", "a3", "b3"]
    assert [data.rsplit(b"alice", 1)[-1] for data in desk.classic[link]] == [b"a1", b"a2", b"a3"]


def test_a_room_that_is_raised_lets_classic_members_go_and_tells_them() -> None:
    desk = Desk()
    alice, carol = seat(desk, "lobby", "alice", "carol", access="mixed")
    link = classic(desk, "bobby")
    raise_access(alice)
    assert isinstance(alice.last(Done), Done)
    policy, leave = carol.heard()[-2:]
    assert (policy.kind, json.loads(policy.body)) == (Kind.POLICY, {"access": "modern"})
    assert json.loads(leave.body) == {"member": 3, "name": "bobby", "reason": Reason.UNENCRYPTED.value}
    assert any(Reason.UNENCRYPTED.value.encode() in data for data in desk.classic[link])
    alice.say(Publish(alice.handles["lobby"], 1, 0, b"among us"))
    assert not any(b"among us" in data for data in desk.classic[link])
    assert desk.classic_member("lobby", "bobby") is Refusal.NOT_FOUND
    dave = known(desk, "daved")
    seated = dave.join("lobby")
    assert isinstance(seated, Seated)
    assert seated.access == "modern"


def test_a_room_that_is_raised_is_so_after_a_restart() -> None:
    desk = Desk()
    [alice] = seat(desk, "lobby", "alice", access="mixed")
    classic(desk, "bobby")
    raise_access(alice)
    desk.crash()
    assert [member.name for member in desk.hub.members("lobby")] == ["alice"]
    assert desk.classic_member("lobby", "bobby") is Refusal.NOT_FOUND


def test_nobody_classic_slips_in_while_a_room_is_being_raised() -> None:
    desk = Desk()
    [alice] = seat(desk, "lobby", "alice", access="mixed")
    desk.patient = True
    early = desk.classic_member("lobby", "early")
    raise_access(alice)
    raise_access(alice)
    assert desk.classic_member("lobby", "late") is Refusal.NOT_FOUND
    desk.commit()
    assert [member.name for member in desk.hub.members("lobby")] == ["alice"]
    assert isinstance(early, ClassicLink)
    assert early.member is None
    assert len(alice.all(Done)) == 2
    assert [one.kind for one in alice.heard()] == [Kind.JOIN, Kind.POLICY, Kind.LEAVE]


def test_a_room_that_was_not_raised_after_all_lets_classic_members_in() -> None:
    desk = Desk()
    [alice] = seat(desk, "lobby", "alice", access="mixed")
    desk.patient = True
    raise_access(alice)
    desk.fail()
    desk.patient = False
    assert isinstance(desk.classic_member("lobby", "bobby"), ClassicLink)


def test_a_room_whose_classic_host_is_shut_out_ends_with_it() -> None:
    desk = Desk()
    host = classic(desk, "host", create=True)
    bob = known(desk, "bobby")
    bob.join("lobby")
    assert denied(bob.ask(Op.RAISE, Raise, handle=bob.handles["lobby"], access="modern")) == 403
    desk.submit(desk.hub.raise_access("lobby", now_s=desk.now_s))
    desk.flush()
    assert [one.kind for one in bob.heard()] == [Kind.POLICY, Kind.LEAVE, Kind.CLOSED]
    assert host.member is None
    assert desk.hub.rooms() == []


def test_a_classic_member_comes_back_after_a_restart_by_its_token_from_its_host() -> None:
    desk = Desk()
    [alice] = seat(desk, "lobby", "alice", access="mixed")
    link = classic(desk, "bobby")
    token, address = link.token, link.address
    desk.crash()
    back = Client(desk, "alice").authenticate(alice)
    back.join("lobby")
    other_host = bytes([address[0], address[1], 10, 9, 9, 9])
    datagram = write_datagram(b"lobby", token, b"I am back")
    assert desk.door.receive_batch([(datagram, other_host)], now_s=desk.now_s) == []
    assert desk.door.receive_batch([(write_datagram(b"lobby", b"x" * 36, b"?"), address)], now_s=desk.now_s) == []
    restored = desk.door.links[token]
    desk.datagram_classic(restored, datagram)
    assert back.texts() == ["I am back"]
    back.say(Publish(back.handles["lobby"], 1, 0, b"welcome"))
    assert desk.classic[restored] == [write_datagram(b"lobby", b"alice", b"welcome")]


def test_a_classic_member_that_does_not_come_back_is_missed() -> None:
    desk = Desk()
    seat(desk, "lobby", "alice", access="mixed", lifetime="persist")
    classic(desk, "bobby")
    desk.crash()
    desk.wait(desk.limits.lost_timeout_s + 1)
    assert [member.name for member in desk.hub.members("lobby")] == ["alice"]
    assert desk.door.restored == {}


def test_a_classic_member_that_asks_for_its_seat_again_is_heard_by_its_new_token_also_after_a_crash() -> None:
    desk = Desk()
    [alice] = seat(desk, "lobby", "alice", access="mixed")
    before = classic(desk, "bobby")
    after = ClassicLink(Form.PLAIN, room="lobby", user="bobby", token=b"n" * 32, address=before.address)
    assert before.member is not None
    turn = desk.hub.move(before.member, after)
    assert isinstance(turn, Turn)
    desk.submit(turn)
    alice.say(Publish(alice.handles["lobby"], 1, 0, b"hello"))
    assert (desk.classic[before], desk.classic[after]) == ([], [b"alice: hello"])
    for crashes in (False, True):
        if crashes:
            desk.crash()
            alice = Client(desk, "alice").authenticate(alice)
            alice.join("lobby")
        desk.say_classic(before, "not by this token")
        desk.say_classic(after, "but by this")
        assert alice.texts()[-1] == "but by this"
        assert "not by this token" not in alice.texts()


def test_a_host_may_kick_classic_members_and_they_are_told() -> None:
    desk = Desk()
    [alice] = seat(desk, "lobby", "alice", access="mixed")
    link = classic(desk, "bobby")
    alice.ask(Op.KICK, Kick, handle=alice.handles["lobby"], member=2)
    assert desk.classic[link] == [write_datagram(b"lobby", b"", b"you were removed: removed by the server")]
    assert link.token not in desk.door.links


def test_a_host_leaves_over_tls_and_never_by_a_datagram() -> None:
    desk = Desk()
    host = classic(desk, "host", create=True)
    bob = known(desk, "bobby")
    bob.join("lobby")
    for text in ("/leave", "/exit", "exit", "quit", "bye"):
        desk.say_classic(host, text)
    assert bob.texts() == ["/leave", "/exit", "exit", "quit", "bye"], "they are words like any"
    assert desk.hub.rooms() == ["lobby"]


def test_a_modern_host_that_ends_a_mixed_room_tells_everybody() -> None:
    desk = Desk()
    [alice] = seat(desk, "lobby", "alice", access="mixed")
    link = classic(desk, "bobby")
    alice.ask(Op.END, RoomRequest, handle=alice.handles["lobby"])
    assert desk.classic[link] == [write_datagram(b"lobby", b"", b"room closed: closed by the host")]
