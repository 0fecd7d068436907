"""Which way messages travel, and what a member sees when a way ends: UDP blocked, TLS cut, another address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import ocm
from ocm import Connection, ConnectionChanged, Delivery, Message, PathKind
from ocm.environment import SIMULATION, Environment
from ocm.protocol.address import Address, make_address
from ocm.testing import Network
from ocm.transport.sim import SimNetwork
from tests.modern import AIKO, URL, Listener, simulated, sitting, until, way


@dataclass
class Pair:
    """A host and a guest who listens; the guest's network is the one that suffers."""

    network: Network
    server: ocm.EmbeddedServer
    hosted: ocm.Room
    room: ocm.Room
    host: Listener
    guest: Listener
    said: int = 0

    async def talk(self, seconds: int = 1) -> None:
        """Let both say something each second, without waiting for it."""
        for _ in range(seconds):
            self.said += 1
            self.hosted.post(f"aiko {self.said}")
            self.room.post(f"ben {self.said}")
            await asyncio.sleep(1)

    async def all_is_well(self, *, within_s: float = 10.0) -> None:
        """Wait until everything said was heard, once and in order, and each word's fate is known."""
        numbers = range(1, self.said + 1)
        await until(
            lambda: (
                self.host.texts == [f"ben {number}" for number in numbers]
                and self.guest.texts == [f"aiko {number}" for number in numbers]
                and len(self.host.receipts) == len(self.guest.receipts) == self.said
            ),
            within_s=within_s,
        )
        receipts = [*self.host.receipts, *self.guest.receipts]
        assert all(receipt.delivery is Delivery.IN_ROOM for receipt in receipts)


@asynccontextmanager
async def pair(network: Network, *, data_dir: Path | None = None) -> AsyncGenerator[Pair]:
    async with (
        ocm.serve(URL, data_dir=data_dir) as server,
        sitting(server.url, "aiko", create=True) as hosted,
        sitting(server.url, "ben") as room,
    ):
        yield Pair(network, server, hosted, room, Listener(hosted), Listener(room))


@simulated
async def test_messages_go_by_udp_where_they_can_and_the_path_is_measured(network: Network) -> None:
    network.link("ben", delay_s=0.02, loss=0.1)
    async with pair(network) as both:
        await until(lambda: way(both.room) is PathKind.UDP, within_s=8)
        await both.talk(30)
        await both.all_is_well()
        path = both.room.path
        assert path.round_trip_s == pytest.approx(0.042, abs=0.03)
        assert 0.0 <= path.loss < 0.5


@simulated
async def test_where_udp_is_blocked_from_the_start_all_goes_over_tls(network: Network) -> None:
    network.cut("ben", only="udp")
    async with pair(network) as both:
        await both.talk(30)
        await both.all_is_well(within_s=4)
        assert way(both.room) is PathKind.TLS
        assert both.room.connection is Connection.CONNECTED
        assert not [event for event in both.guest.events if isinstance(event, ConnectionChanged)]


@simulated
async def test_where_udp_is_blocked_for_three_hours_nothing_is_lost_and_it_is_found_again(network: Network) -> None:
    async with pair(network) as both:
        await both.talk(3)
        network.cut("ben", only="udp")
        for _ in range(30):
            await both.talk(1)
            await asyncio.sleep(360)
        await both.all_is_well()
        assert both.guest.ways == [PathKind.UDP, PathKind.TLS]
        network.heal("ben")
        assert await until(lambda: way(both.room) is PathKind.UDP, within_s=60) > 0
        assert both.guest.ways == [PathKind.UDP, PathKind.TLS, PathKind.UDP]
        assert not [event for event in both.guest.events if isinstance(event, ConnectionChanged)]


@simulated
async def test_udp_cut_in_the_middle_costs_seconds_and_no_message(network: Network) -> None:
    async with pair(network) as both:
        await until(lambda: way(both.room) is PathKind.UDP)
        both.hosted.post("aiko 1")
        both.room.post("ben 1")
        both.said = 1
        network.cut("ben", only="udp")
        await both.all_is_well(within_s=10)
        await until(lambda: way(both.room) is PathKind.TLS)


@simulated
async def test_one_direction_of_udp_is_not_enough(network: Network) -> None:
    for direction in ("up", "down"):
        async with pair(network) as both:
            await until(lambda: way(both.room) is PathKind.UDP)
            network.cut("ben", only="udp", direction=direction)
            await both.talk(30)
            await both.all_is_well()
            assert way(both.room) is PathKind.TLS
            network.heal("ben")


@simulated
async def test_without_tls_a_session_lives_on_datagrams_until_there_is_tls_again(network: Network) -> None:
    async with pair(network) as both:
        await until(lambda: way(both.room) is PathKind.UDP)
        network.cut("ben", only="tcp")
        await both.talk(60)
        await both.all_is_well()
        assert way(both.room) is PathKind.UDP
        assert both.server.status().hub.members == 2
        network.heal("ben")
        await both.talk(60)
        await both.all_is_well()
        assert len(await both.room.history(240)) == 240  # for which TLS is needed


@simulated
async def test_a_new_address_every_two_seconds_loses_nothing(network: Network) -> None:
    network.link("ben", loss=0.05, jitter_s=0.02)
    async with pair(network) as both:
        for _ in range(30):
            await both.talk(2)
            network.move("ben")
        await both.all_is_well()
        assert await both.room.fetch_members() == ("aiko", "ben")
        assert both.server.status().hub.members == 2


@simulated
async def test_while_datagrams_go_through_no_connection_is_told_to_be_lost(network: Network) -> None:
    async with pair(network) as both:
        await until(lambda: way(both.room) is PathKind.UDP)
        network.move("ben")
        await both.talk(5)
        await both.all_is_well()
        assert not [event for event in both.guest.events if isinstance(event, ConnectionChanged)]
        assert both.guest.ways[-1] is PathKind.UDP


@simulated
async def test_a_machine_that_slept_looks_at_once_whether_its_ways_are_still_there(network: Network) -> None:
    jump_s = 0.0
    surroundings = SIMULATION.get()
    assert surroundings is not None

    def sleepy(host: str) -> Environment:
        environment = surroundings(host)
        return replace(environment, clock=lambda: environment.clock() + jump_s)

    SIMULATION.set(sleepy)
    async with pair(network) as both:
        await until(lambda: way(both.room) is PathKind.UDP)
        await asyncio.sleep(2)
        start_s = network.now_s
        jump_s = 8 * 3600  # the wall clock went on, the other did not
        await asyncio.sleep(6)
        probes = [
            one
            for one in network.timeline.of("ben")
            if one.size == 1200 and start_s < one.time_s and "ben" in one.source
        ]
        assert probes
        assert way(both.room) is PathKind.UDP
        await both.talk(3)
        await both.all_is_well()


@simulated
async def test_who_only_listens_shows_its_new_address_at_once(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else can know of it: what is said to the old one is lost."""
    source = SimNetwork.source
    moved = False

    def elsewhere(self: SimNetwork, destination: Address) -> Address | None:
        return make_address("10.9.9.9", 0) if moved else source(self, destination)

    monkeypatch.setattr(SimNetwork, "source", elsewhere)
    async with pair(network) as both:
        await until(lambda: way(both.room) is PathKind.UDP)
        await asyncio.sleep(5)
        for shows in (False, True):
            moved, start_s = shows, network.now_s
            await asyncio.sleep(1.5)
            sent = {
                one.kind.split()[0]
                for one in network.timeline.of("ben")
                if start_s < one.time_s and "ben" in one.source
            }
            assert sent == ({"tcp", "udp"} if shows else set())
        assert way(both.room) is PathKind.UDP


@simulated
async def test_a_partition_of_a_minute_is_told_and_nothing_is_lost(network: Network) -> None:
    async with pair(network) as both:
        await both.talk(3)
        network.partition(["ben"], ["server"])
        await both.talk(60)
        assert way(both.room) is PathKind.NONE
        network.heal()
        await both.all_is_well()
        assert both.room.connection is Connection.CONNECTED
        changes = [event for event in both.guest.events if isinstance(event, ConnectionChanged)]
        assert changes[0] == ConnectionChanged(Connection.RECONNECTING, 0)
        assert changes[-1].connection is Connection.CONNECTED
        attempts = [change.attempt for change in changes[:-1]]
        assert attempts == sorted(attempts)
        assert both.hosted.members() == ("aiko", "ben")


@simulated
async def test_a_room_whose_host_was_not_to_be_reached_for_an_hour_is_over(network: Network) -> None:
    async with pair(network) as both:
        await both.talk(3)
        network.cut("server")
        await both.talk(10)
        await asyncio.sleep(3600)
        network.heal("server")
        await asyncio.sleep(10)
        # The host was away for longer than its room waits for it.
        assert both.guest.events[-1] == ocm.RoomClosed(ocm.Reason.HOST_LEFT)


@simulated
async def test_large_messages_and_small_ones_keep_their_order(network: Network, tmp_path: Path) -> None:
    network.link("ben", loss=0.2, jitter_s=0.05)
    async with pair(network, data_dir=tmp_path) as both:
        texts = [str(number) * (9000 if number % 3 else 1) for number in range(10, 40)]
        for text in texts:
            both.room.post(text)
        await until(lambda: both.host.texts == texts, within_s=60)


@simulated
async def test_a_crowd_with_a_bad_network_hears_everything_once_and_in_one_order(network: Network) -> None:
    names = [f"m{number}" for number in range(8)]
    network.at(15, network.cut, "m3")
    network.at(35, network.heal, "m3")
    network.at(20, network.move, "m4")
    network.at(10, network.cut, "m5", only="udp")
    orders: dict[str, list[tuple[int | None, str]]] = {}
    start = asyncio.Event()

    async def talk(room: ocm.Room) -> None:
        heard: list[tuple[int | None, str]] = []
        orders[room.user] = heard
        if len(orders) == len(names):
            for name in names:  # not sooner: who cannot even enter has no part in it
                network.link(name, loss=0.3, duplicate=0.1, reorder=0.2, jitter_s=0.1)
            start.set()

        async def listen() -> None:
            async for event in room:
                match event:
                    case Message(seq=seq, text=text) | ocm.Receipt(seq=seq, text=text):
                        heard.append((seq, text))
                    case _:
                        pass

        listening = asyncio.create_task(listen())
        await start.wait()
        for number in range(30):
            room.post(f"{room.user} says {number}")
            await asyncio.sleep(1)
        await until(lambda: len(heard) == 30 * len(names), within_s=120)
        listening.cancel()

    async def join(url: str, name: str) -> None:
        async with sitting(url, name) as room:
            await talk(room)

    async with ocm.serve(URL) as server, sitting(server.url, "m0", create=True) as room, asyncio.TaskGroup() as group:
        for name in names[1:]:
            group.create_task(join(server.url, name))
        await talk(room)
    logs = {tuple(sorted(heard, key=lambda line: line[0] or 0)) for heard in orders.values()}
    assert len(logs) == 1
    for name, heard in orders.items():
        others = [line for line in heard if not line[1].startswith(f"{name} ")]
        assert others == sorted(others, key=lambda line: line[0] or 0)


@simulated
async def test_a_guest_hears_of_a_host_that_is_away_and_of_one_that_stays_away(network: Network) -> None:
    async with pair(network) as both:
        network.cut("aiko")
        await asyncio.sleep(50)
        network.heal("aiko")
        await asyncio.sleep(30)
        assert (await both.hosted.send("still here")).delivery is Delivery.IN_ROOM
        network.cut("aiko")
        await both.guest.end()
        assert both.guest.events[-1] == ocm.RoomClosed(ocm.Reason.HOST_LEFT)
        assert ocm.MemberLeft(AIKO, ocm.Reason.LOST) in both.guest.events
        network.heal("aiko")
        assert isinstance((await both.host.end())[-1], ocm.RoomClosed | ocm.Removed)
