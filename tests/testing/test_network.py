"""Real servers and clients on a simulated network: where they live, what befalls them, and that it repeats."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ocm
from ocm.environment import SIMULATION
from ocm.errors import LocalProtocolError, NotSimulated, SimulationError, Stuck
from ocm.protocol.address import make_address, port_of, split_address
from ocm.testing import Happening, Network, StreamTimes, Timeline
from ocm.testing.network import EPOCH_S
from ocm.transport.base import Batch, Stream, StreamHandler
from ocm.transport.memory import MemoryNetwork
from tests.canaries import needs_unmarked

ROOT = Path(__file__).parents[2]


async def hello(wait_s: float = 0.0) -> list[object]:
    """Run the sample of the design: a server, a host who speaks, a guest who listens."""
    async with (
        ocm.serve("tcrp://[::1]:0") as server,
        ocm.connect(server.url, user="aiko") as aiko,
        ocm.connect(server.url, user="ben") as ben,
        aiko.create("lobby") as hosted,
        ben.join("lobby") as room,
    ):
        await asyncio.sleep(wait_s)
        hosted.post("hello")
        heard: list[object] = []
        async for event in room:
            heard.append(event)
            if isinstance(event, ocm.Message):
                break
        return heard


async def crowd(members: int = 10, seconds: int = 60) -> int:
    """Let everybody in a room speak once a second; return how many messages were heard."""
    heard = 0

    async def talk(room: ocm.Room) -> None:
        nonlocal heard

        async def listen() -> None:
            nonlocal heard
            async for event in room:
                heard += isinstance(event, ocm.Message)

        listening = asyncio.create_task(listen())
        for second in range(seconds):
            room.post(f"second {second}")
            await asyncio.sleep(1)
        listening.cancel()

    async def join(url: str, user: str) -> None:
        async with ocm.connect(url, user=user) as client, client.join("lobby") as room:
            await talk(room)

    async with (
        ocm.serve("tcrp://[::1]:0") as server,
        ocm.connect(server.url, user="m0") as host,
        host.create("lobby") as room,
        asyncio.TaskGroup() as group,
    ):
        for number in range(1, members):
            group.create_task(join(server.url, f"m{number}"))
        await talk(room)
        await asyncio.sleep(20)  # a guest may have needed that much longer to get in
    return heard


def crowded(seed: int) -> Network:
    network = Network(seed)
    for number in range(10):
        network.link(f"m{number}", loss=0.2, jitter_s=0.01, reorder=0.1, duplicate=0.05)
    network.at(20, network.cut, "m3")
    network.at(35, network.heal, "m3")
    return network


# --- where programs live -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_sample_of_the_design_runs(seed: int) -> None:
    network = Network(seed)
    network.link("aiko", loss=0.3, direction="down")
    assert ocm.Message(ocm.Person("aiko"), "hello") in network.run(hello())
    hosts = {happening.source.partition(":")[0] for happening in network.timeline}
    assert hosts == {"server", "aiko", "ben"}


def test_hosts_are_reached_by_name_and_chosen_by_on() -> None:
    async def program(network: Network) -> None:
        with network.on("cellar"):
            async with ocm.serve("tcrp://0.0.0.0:7000?udp=7001") as server:
                assert server.url == "tcrp://0.0.0.0:7000?udp=7001"
                with network.on("laptop"):
                    async with (
                        ocm.connect("tcrp://cellar:7000?udp=7001", user="aiko") as client,
                        client.create("lobby") as room,
                    ):
                        await room.send("hello")

    network = Network(1)
    network.run(program(network))
    assert {happening.source.partition(":")[0] for happening in network.timeline} == {"cellar", "laptop"}


def test_several_servers_run_side_by_side_and_a_bridge_between_them() -> None:
    async def program(network: Network) -> list[str]:
        with network.on("north"):
            north_server = ocm.serve("tcrp://[::1]:0")
            north = await north_server.__aenter__()
        async with ocm.serve("tcrp://[::1]:0") as south, ocm.serve("tcrp://[::1]:0") as third:
            assert len({north.url, south.url, third.url}) == 3
            heard: list[str] = []
            for server in (north, south, third):
                async with ocm.connect(server.url, user="bridge") as client, client.create("lobby") as room:
                    heard.extend(await room.fetch_members())
                    assert server.status().hub.rooms == 1
        await north_server.__aexit__(None, None, None)
        return heard

    network = Network(1)
    assert network.run(program(network)) == ["bridge"] * 3


def test_a_network_given_by_name_wins() -> None:
    async def program() -> None:
        memory = MemoryNetwork()
        async with (
            ocm.serve("tcrp://127.0.0.1:0", network=memory) as server,
            ocm.connect(server.url, user="aiko", network=memory) as client,
            client.create("lobby"),
        ):
            pass

    network = Network(1)
    network.run(program())
    assert not list(network.timeline)


def test_after_a_run_the_real_network_is_back() -> None:
    Network(1).run(hello())

    async def program() -> str:
        async with ocm.serve("tcrp://127.0.0.1:0") as server:
            return server.url

    assert asyncio.run(program()).startswith("tcrp://127.0.0.1:")


def test_a_users_name_may_hold_what_a_hosts_may_not() -> None:
    async def program() -> None:
        async with (
            ocm.serve("tcrp://[::1]:0") as server,
            ocm.connect(server.url, user="a:b@c") as client,
            client.create("lobby"),
        ):
            pass

    network = Network(1)
    network.run(program())
    assert network.timeline.of("a_b_c")
    for name in ("", "a:b", "a@b"):
        with pytest.raises(LocalProtocolError):
            network.host(name)


# --- what befalls them ---------------------------------------------------------------------------------------


def test_plans_run_on_time_and_what_they_raise_ends_the_run() -> None:
    network = Network(1)
    times: list[float] = []

    def plan() -> None:
        times.append(network.now_s)
        network.at(3.5, lambda: times.append(network.now_s))
        network.at(0.5, lambda: times.append(network.now_s))

    network.at(2, plan)
    network.run(asyncio.sleep(3))
    assert times == [2.0, 2.0]
    network.at(4, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        network.run(asyncio.sleep(3))
    assert network.now_s == 4.0
    with pytest.raises(LocalProtocolError):
        network.at(-1, plan)


def test_a_second_run_goes_on_where_the_first_ended() -> None:
    network = Network(1)
    network.run(hello())
    first = len(network.timeline)
    ended_s = network.now_s
    network.run(hello())
    assert network.now_s > ended_s
    assert len(network.timeline) > first


def test_a_member_whose_address_changes_comes_back_and_is_heard() -> None:
    async def program() -> list[str]:
        async with (
            ocm.serve("tcrp://[::1]:0") as server,
            ocm.connect(server.url, user="aiko") as aiko,
            ocm.connect(server.url, user="ben") as ben,
            aiko.create("lobby") as hosted,
            ben.join("lobby") as room,
        ):
            await asyncio.sleep(10)
            assert room.connection is ocm.Connection.CONNECTED
            room.post("here again")
            async for event in hosted:
                if isinstance(event, ocm.Message):
                    return [event.text]
        return []

    network = Network(1)
    network.at(5, network.move, "ben")
    assert network.run(program()) == ["here again"]
    assert any(happening.source.startswith("ben@2:") for happening in network.timeline)


def test_behind_a_partition_nothing_is_heard_and_within_it_all() -> None:
    network = Network(1)
    network.partition(["ben"], ["server", "aiko"])
    with pytest.raises(ocm.ConnectFailed):
        network.run(hello())
    network.heal()
    assert network.run(hello())


# --- what is refused -----------------------------------------------------------------------------------------


def test_a_thread_is_refused_even_if_nobody_lets_the_error_through() -> None:
    async def program() -> None:
        with contextlib.suppress(ocm.OcmError):
            await asyncio.to_thread(print)

    with pytest.raises(NotSimulated, match="run_in_executor"):
        Network(1).run(program())


def test_a_thread_that_hides_behind_another_error_is_named() -> None:
    async def program() -> None:
        try:
            await asyncio.to_thread(print)
        except ocm.OcmError:
            raise KeyError from None

    with pytest.raises(NotSimulated) as caught:
        Network(1).run(program())
    assert isinstance(caught.value.__cause__, KeyError)


def test_what_fails_in_the_background_is_raised() -> None:
    async def program() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    with pytest.raises(SimulationError, match="ZeroDivisionError") as caught:
        Network(1).run(program())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_program_that_waits_for_ever_is_stuck_and_so_is_one_that_takes_too_long() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    async def tick() -> None:
        while True:  # noqa: ASYNC110 - that is the point
            await asyncio.sleep(1)

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    network = Network(1)
    for program in (wait, stubborn):
        with pytest.raises(Stuck, match="waits for ever"):
            network.run(program())
    with pytest.raises(Stuck, match="the time was over"):
        network.run(tick(), at_most_s=100)
    assert network.now_s == 100


async def test_it_does_not_run_inside_another_loop() -> None:
    with pytest.raises(LocalProtocolError, match="where none runs"):
        Network(1).run(asyncio.sleep(1))


def test_as_a_context_manager_it_adds_the_seed_and_the_timeline_to_what_is_raised() -> None:
    def failing() -> None:
        with Network(seed=77) as network:
            network.run(hello())
            raise ValueError("what for")

    with pytest.raises(ValueError, match="what for") as caught:
        failing()
    (note,) = caught.value.__notes__
    assert note.startswith("simulated network: seed 77, 0.")
    assert "aiko:" in note


# --- that it repeats -------------------------------------------------------------------------------------------


class Echo:
    """Sends back what comes over a stream, twice as long."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.heard = b""
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if port_of(self._stream.local) == 1:
            self._stream.write(data * 2)

    def eof_received(self) -> None:
        self._stream.close()

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(error)


async def raw(network: Network) -> None:
    """Talk over bare streams and ports: what other versions of the protocol do cannot change this."""
    here, there = network.host("server"), network.host("far")

    def begin(stream: Stream) -> StreamHandler:
        return Echo(stream)

    def answer(batch: Batch) -> None:
        for data, source in batch:
            port.group([source]).send(data + b"!")

    port = await here.open_port(None, 2, answer, size_max=5000, unsent_max=10)
    await here.listen(None, 1, begin, write_buffer_max=1000)
    stream = await there.connect("server", 1, begin, write_buffer_max=1000)
    asking = await there.open_port(None, 0, lambda _: None, size_max=5000, unsent_max=10)
    for number in range(100):
        stream.write(b"%d" % number * 100)
        asking.group([make_address(split_address(stream.remote)[0], 2)]).send(b"%d" % number)
        await asyncio.sleep(0.05)
    stream.close()
    await asyncio.sleep(20)


def test_bare_streams_and_datagrams_give_the_same_timeline_on_every_machine_and_python() -> None:
    network = Network(2024)
    network.link("far", loss=0.2, duplicate=0.1, reorder=0.1, delay_s=0.03, jitter_s=0.02, bandwidth=20_000)
    network.at(2.0, network.cut, "far")
    network.at(3.0, network.heal, "far")
    network.at(4.0, network.move, "far")
    network.run(raw(network))
    assert network.timeline.digest() == "049af6e5430de4236935ca60ffca698d2b9742360c2b03f85bdc09d3312b8215"


@needs_unmarked
def test_the_same_seed_gives_the_same_timeline_in_every_process() -> None:
    program = (
        "from tests.testing.test_network import crowd, crowded; network = crowded(7)\n"
        "network.run(crowd()); print(network.timeline.digest())"
    )
    digests = [
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={"PYTHONHASHSEED": hash_seed},
            timeout=30,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    ]
    network = crowded(7)
    assert network.run(crowd()) > 3000
    assert digests == [network.timeline.digest()] * 2
    other = crowded(8)
    other.run(crowd())
    assert other.timeline.digest() != digests[0]


def test_the_timeline_tells_who_sent_what_when_and_never_what_it_says() -> None:
    network = Network(3)
    network.link("ben", loss=0.5)
    network.run(hello(2.0))
    text = str(network.timeline)
    assert text.encode() == network.timeline.bytes()
    lines = text.splitlines()
    assert len(lines) == len(network.timeline)
    assert [float(line.split()[0]) for line in lines] == sorted(float(line.split()[0]) for line in lines)
    assert any("aiko:" in line and "-> server:" in line and "udp" in line and " B " in line for line in lines)
    assert any(line.endswith("lost") for line in lines)
    assert "hello" not in text
    assert "lobby" not in text
    lost = [happening for happening in network.timeline if happening.is_lost]
    assert lost
    assert all(not happening.arrivals_ns and happening.time_s >= 0 for happening in lost)


def test_tokens_come_from_the_seed_and_the_time_of_day_is_the_same_each_time() -> None:
    payloads: list[set[str]] = []
    for seed in (1, 1, 2):
        network = Network(seed)
        network.run(hello())
        payloads.append({happening.digest for happening in network.timeline if happening.size == 139})
    assert payloads[0] == payloads[1] != payloads[2]


CHANGES: list[Callable[[Network], None]] = [
    lambda network: network.cut("a"),
    lambda network: network.link("a", loss=0.1),
    lambda network: network.move("a"),
    lambda network: network.partition("a", "b"),
]


def test_a_timeline_is_bounded_and_says_so() -> None:
    timeline = Timeline(events_max=2)
    for number in range(5):
        timeline.add(Happening(number, "aiko", "", "cut", ""))
    assert (len(timeline), timeline.missed) == (2, 3)
    assert timeline.text().endswith("... and 3 more, not kept\n")
    assert timeline.tail(1).startswith("0.000000  aiko")
    assert not timeline.tail(0)


def test_each_server_and_client_has_chance_of_its_own_and_the_simulations_time_of_day() -> None:
    async def program() -> list[object]:
        simulation = SIMULATION.get()
        assert simulation is not None
        await asyncio.sleep(1.5)
        several = [simulation(host) for host in ("server", "server", "aiko")]
        drawn = [environment.randomness(8) for environment in several] + [one.jitter() for one in several]
        assert len(set(drawn)) == 6
        return [*drawn, *(environment.clock() for environment in several)]

    first = Network(1).run(program())
    assert first == Network(1).run(program()) != Network(2).run(program())
    assert first[-3:] == [EPOCH_S + 1.5] * 3


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_on_the_timeline(change: Callable[[Network], None]) -> None:
    network = Network(1, times=StreamTimes())
    change(network)
    (happening,) = network.timeline
    assert happening.source.split()[0] == "a"
    assert not happening.is_lost
