"""Classic and modern members in one room, and rooms that classic programs cannot see."""

from __future__ import annotations

import asyncio

import pytest

import ocm
from ocm import Access, Message, Policy, Reason
from ocm.testing import Network
from ocm.transport.memory import MemoryNetwork
from tests.client.stage import Machine, rest
from tests.modern import AIKO, BEN, CARL, URL, Listener, simulated, sitting, until
from tests.peers import CREATE, JOIN, MISSING, SERVER, Ear, Peer, datagram, open_ear, packet, refused, request
from tests.security import a_certificate
from tests.virtual import now_s, quiet, virtual

MIXED = Policy(Access.MIXED)


def classic_url(server: ocm.EmbeddedServer) -> str:
    assert server.classic_url is not None
    return server.classic_url


# --- one room, two profiles -----------------------------------------------------------------------------------


@simulated
async def test_everybody_hears_everybody_once_and_modern_members_see_who_is_on_plaintext(network: Network) -> None:
    async with (
        ocm.serve(URL) as server,
        sitting(server.url, "aiko", create=True, policy=MIXED) as hosted,
        sitting(classic_url(server), "carl") as plain,
        sitting(server.url, "ben") as room,
    ):
        listeners = [Listener(seat) for seat in (hosted, plain, room)]
        assert room.policy == MIXED
        assert (room.encrypted, plain.encrypted) == (True, False)
        assert (plain.policy, plain.plaintext_members) == (None, None)
        await hosted.send("from aiko")
        await plain.send("from carl")
        await until(lambda: len(listeners[0].texts) == 1)  # for a datagram of his may take its time
        await room.send("from ben")
        await until(lambda: all(len(listener.texts) == 2 for listener in listeners))
        await asyncio.sleep(10)
        assert [listener.texts for listener in listeners] == [
            ["from carl", "from ben"],
            ["from aiko", "from ben"],
            ["from aiko", "from carl"],
        ]
        assert hosted.plaintext_members == room.plaintext_members == 1
        said = {event.text: event for listener in listeners for event in listener.events if isinstance(event, Message)}
        assert [said[f"from {name}"].plaintext for name in ("aiko", "carl", "ben")] == [False, True, False]
        assert [said[f"from {name}"].sender for name in ("aiko", "carl", "ben")] == [AIKO, CARL, BEN]
        read_back = await room.history()
        assert [(message.text, message.plaintext) for message in read_back] == [
            ("from aiko", False),
            ("from carl", True),
            ("from ben", False),
        ]
        await plain.leave()
        await until(lambda: room.plaintext_members == 0)


@simulated
async def test_a_room_that_a_classic_program_makes_is_mixed_and_closes_with_its_host(network: Network) -> None:
    async with ocm.serve(URL) as server:
        hosting = sitting(classic_url(server), "carl", create=True)
        await hosting.__aenter__()
        async with sitting(server.url, "ben") as room:
            listener = Listener(room)
            assert room.policy is not None
            assert room.policy.access is Access.MIXED
            assert room.plaintext_members == 1
            await hosting.__aexit__(None, None, None)
            assert (await listener.end())[-1] == ocm.RoomClosed(Reason.HOST_LEFT)


@simulated
async def test_a_room_raised_to_encryption_sends_classic_members_away_and_does_not_come_down(network: Network) -> None:
    async with (
        ocm.serve(URL) as server,
        sitting(server.url, "aiko", create=True, policy=MIXED) as hosted,
        sitting(server.url, "ben") as room,
        sitting(classic_url(server), "carl") as plain,
    ):
        await asyncio.sleep(1)
        await hosted.require_encryption()
        assert (await rest(plain))[-1] == ocm.Removed(Reason.UNENCRYPTED)
        listener = Listener(room)
        await until(lambda: ocm.PolicyChanged(Access.MODERN) in listener.events)
        assert ocm.MemberLeft(CARL, Reason.UNENCRYPTED) in listener.events
        assert room.policy == Policy(Access.MODERN)
        assert room.plaintext_members == 0
        with pytest.raises(ocm.RoomRefused) as refusal:
            async with sitting(classic_url(server), "carl"):
                pass
        assert refusal.value.code == ocm.Refusal.NOT_FOUND
        await hosted.require_encryption()  # it is so already
        await room.send("now among ourselves")


@simulated
async def test_what_a_classic_member_says_on_a_bad_network_comes_once_or_not_at_all(network: Network) -> None:
    network.link("carl", loss=0.3, jitter_s=0.01)
    async with (
        ocm.serve(URL) as server,
        sitting(server.url, "aiko", create=True, policy=MIXED) as hosted,
        sitting(classic_url(server), "carl") as plain,
    ):
        aikos, carls = Listener(hosted), Listener(plain)
        for number in range(50):
            plain.post(f"carl {number}")
            hosted.post(f"aiko {number}")
            await asyncio.sleep(0.1)
        await asyncio.sleep(10)
        for heard, name in ((aikos.texts, "carl"), (carls.texts, "aiko")):
            numbers = [int(text.removeprefix(f"{name} ")) for text in heard]
            assert numbers == sorted(set(numbers))
            assert 0 < len(numbers) < 50


# --- what crosses the network in clear ------------------------------------------------------------------------


async def dial(server: ocm.EmbeddedServer, network: MemoryNetwork, host: str) -> Peer:
    """Be a classic program by hand."""
    peer = Peer()
    await network.host(host).connect(SERVER, server.tcp_port, peer.begin, write_buffer_max=65_536)
    return peer


@virtual
async def test_relayed_datagrams_carry_names_and_texts_and_nobodys_token() -> None:
    network = MemoryNetwork()
    async with (
        ocm.serve(
            f"tcrps://{SERVER}:0", network=network.host(SERVER), certificate=a_certificate(), classic="on"
        ) as server,
        ocm.connect(server.url, user="aiko", network=Machine(network)) as client,
        client.create("r", policy=MIXED) as room,
    ):
        tokens: list[bytes] = []
        ears: list[Ear] = []
        for number, user in enumerate(("carl", "cho")):
            peer = await dial(server, network, f"10.0.5.{number}")
            ear = await open_ear(network.host(f"10.0.5.{number}"), 5000)
            await peer.ask(request("ocm", JOIN, "r", user), wait_s=0.2)
            token = peer.received.rpartition(b'"user_token":')[2].strip(b' "}')
            tokens.append(token)
            ears.append(ear)
            ear.send(datagram(b"r", token, b"here I am"), host=SERVER, port=server.udp_port)
        await quiet()
        await room.send("hello")
        await quiet()
        heard = [ear.take() for ear in ears]
        assert datagram(b"r", b"aiko", b"hello") in heard[0]
        assert datagram(b"r", b"aiko", b"hello") in heard[1]
        assert not any(token in data for token in tokens for data in (*heard[0], *heard[1]))


# --- rooms that classic programs cannot see ---------------------------------------------------------------------


async def answers(
    server: ocm.EmbeddedServer, network: MemoryNetwork, room: str, *, form: str
) -> list[tuple[float, bytes]]:
    """Ask to join as a classic program; return what is answered and when, from the question on."""
    peer = await dial(server, network, "10.0.6.1")
    start_s = now_s()
    await peer.ask(request(form, JOIN, room, "carl"), wait_s=5)
    peer.stream.abort()
    await quiet()
    return [(round(at_s - start_s, 6), data.replace(room.encode(), b"ROOM")) for at_s, data in peer.chunks]


@pytest.mark.parametrize("form", ["ocm", "plain", "reference"])
@virtual
async def test_to_a_classic_program_a_modern_room_is_as_one_that_does_not_exist(form: str) -> None:
    network = MemoryNetwork()
    async with (
        ocm.serve(
            f"tcrps://{SERVER}:0", network=network.host(SERVER), certificate=a_certificate(), classic="on"
        ) as server,
        ocm.connect(server.url, user="aiko", network=Machine(network)) as client,
        client.create("secret") as room,
        await server.create("inside", "host"),
    ):
        names = ["secret", "absent", "inside"] * 8  # past the bound on failed joins: answers then come late
        seen = [await answers(server, network, name, form=form) for name in names]
        early, late = seen[:9], seen[10:]
        assert early.count(early[0]) == len(early)
        assert late.count(late[0]) == len(late)
        assert early[0] != late[0]
        assert early[0]
        if form == "ocm":
            assert early[0][0][1] == refused(JOIN, "ROOM", 404, MISSING).replace(b"\x04", b"\x06", 1)
        listener = Listener(room)
        await asyncio.sleep(1)
        assert not listener.texts
        listener.stop()


@virtual
async def test_that_a_name_is_taken_cannot_be_hidden() -> None:
    network = MemoryNetwork()
    async with (
        ocm.serve(
            f"tcrps://{SERVER}:0", network=network.host(SERVER), certificate=a_certificate(), classic="on"
        ) as server,
        await server.create("secret", "host"),
    ):
        peer = await dial(server, network, "10.0.6.1")
        [first, *_] = await peer.ask(request("ocm", CREATE, "secret", "carl"))
        assert first.startswith(packet(CREATE, 1, b"secret", b"")[:3])
        assert b"409" in first
