"""The end of a server: members told, everything closed, in bounded time."""

from __future__ import annotations

import asyncio

import pytest

from ocm.errors import AddressInUse, RoomRefused, SendRefused, TransportClosed
from ocm.protocol.entry import Reason
from ocm.protocol.events import RoomClosed
from ocm.protocol.limits import Limits
from ocm.server.server import Server
from ocm.store.memory import MemoryJournal
from ocm.transport.memory import MemoryNetwork
from tests.peers import CREATE, JOIN, MEMBERS, SERVER, TCP_PORT, UDP_PORT, datagram, request, serving
from tests.virtual import now_s, quiet, virtual


@virtual
async def test_members_are_told_in_their_forms_and_connections_closed() -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        paul = await world.sit("plain", JOIN, "r", "paul", host="10.0.0.2")
        rita = await world.sit("reference", JOIN, "r", "rita", host="10.0.0.3")
        local = await world.server.enter("r", "lena", create=False)
        idle = await world.dial("10.0.0.4")
        started_s = now_s()
        await world.server.stop()
        assert now_s() - started_s < 0.1
        await quiet()
        assert alice.heard()[-1] == datagram(b"r", b"", b"room closed: the server is stopping")
        assert paul.heard() == [b"* room closed, the server is stopping"]
        assert rita.heard() == [datagram(b"r", rita.token, b"* room closed: the server is stopping")]
        assert all(peer.ended for peer in (alice.peer, paul.peer, rita.peer, idle))
        assert [event async for event in local][-1] == RoomClosed(Reason.SERVER_STOPPED)
        with pytest.raises(SendRefused, match="closed"):
            await local.send("too late")
        await world.server.stop()  # idempotent


@virtual
async def test_the_addresses_are_free_afterwards() -> None:
    network = MemoryNetwork()
    for _ in range(3):
        async with serving(network=network) as world:
            await world.works()
        await quiet()


@virtual
async def test_a_peer_that_never_hangs_up_delays_the_end_by_a_second() -> None:
    async with serving() as world:
        stubborn = await world.dial(hangs_up=False)
        stubborn.stream.pause_reading()
        stubborn.send(request("ocm", CREATE, "r", "alice"))
        await asyncio.sleep(0.1)
        started_s = now_s()
        await world.server.stop()
        assert now_s() - started_s == pytest.approx(1.0, abs=0.1)
        await quiet()
        assert stubborn.lost


@virtual
async def test_an_answer_under_way_is_written_to_its_end() -> None:
    async with serving() as world:
        peer = await world.dial()
        peer.send(request("ocm", CREATE, "r", "alice"))
        await asyncio.sleep(0.005)
        assert len(peer.chunks) == 1
        await world.server.stop()
        await quiet()
        assert len(peer.chunks) == 2


@virtual
async def test_nobody_is_let_in_while_the_server_stops() -> None:
    async with serving() as world:
        stubborn = await world.dial(hangs_up=False)
        stubborn.stream.pause_reading()
        stubborn.send(request("ocm", CREATE, "r", "alice"))
        late = await world.dial()
        late.send(request("ocm", JOIN, "nowhere", "bob") + request("ocm", CREATE, "new", "bob"))
        await quiet()
        stopping = asyncio.ensure_future(world.server.stop())
        await asyncio.sleep(0.5)
        with pytest.raises(RoomRefused) as refusal:
            await world.server.enter("late", "carl", create=True)
        assert refusal.value.code == 480
        assert not stopping.done()
        await stopping
        assert world.server.status().hub.rooms == 0


@virtual
async def test_what_waits_for_a_full_socket_goes_out_before_the_end() -> None:
    async with serving(network=MemoryNetwork(datagrams_per_turn=3)) as world:
        seats = [await world.sit("reference", CREATE, "r", "host")]
        seats += [await world.sit("reference", JOIN, "r", f"guest {n}") for n in range(12)]
        await world.server.stop()
        await quiet()
        for seat in seats:
            assert seat.heard()[-1].endswith(b"the server is stopping")


@virtual
async def test_timers_do_not_outlive_the_server() -> None:
    async with serving(limits=Limits(burst_max=1, rate_per_s=1.0)) as world:
        alice = await world.sit("ocm", CREATE, "r", "alice")
        await alice.peer.ask(alice.request(MEMBERS))
        for _ in range(3):
            alice.say("flood")
        alice.peer.stream.abort()
        await quiet()
        alice.heard()
        await world.server.stop()
        await asyncio.sleep(2000)
        assert alice.notices() == ["room closed: the server is stopping"]


@virtual
async def test_a_taken_port_is_said_and_nothing_stays_open() -> None:
    network = MemoryNetwork()
    async with serving(network=network):
        for tcp_port, udp_port, kind in ((TCP_PORT, 0, "TCP"), (0, UDP_PORT, "UDP")):
            for _ in range(2):
                second = Server(network.host(SERVER), MemoryJournal(Limits()), limits=Limits(), randomness=bytes)
                with pytest.raises(AddressInUse) as taken:
                    await second.start(None, tcp_port=tcp_port, udp_port=udp_port)
                assert taken.value.kind == kind
    strange = Server(network.host(SERVER), MemoryJournal(Limits()), limits=Limits(), randomness=bytes)
    with pytest.raises(TransportClosed):
        await strange.start("10.99.99.99", tcp_port=0, udp_port=0)


@virtual
async def test_the_status_counts() -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await world.sit("ocm", JOIN, "r", "bob", host="10.0.0.2")
        await world.dial()
        before = world.server.status()
        bob.say("hello")
        bob.ear.send(b"junk")
        await quiet()
        status = world.server.status()
        assert (status.hub.rooms, status.hub.members, status.hub.pending, status.connections) == (1, 2, 0, 3)
        assert status.datagrams_received - before.datagrams_received == 2
        assert status.datagrams_sent - before.datagrams_sent == 1
        assert status.datagrams_dropped == 0
        assert status.door.malformed == 1
        assert alice.heard()
        assert (world.server.tcp_port, world.server.udp_port) == (TCP_PORT, UDP_PORT)
