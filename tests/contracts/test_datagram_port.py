"""The contract of datagram ports, over every implementation: sockets on loopback, memory, a simulation."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import pytest

from ocm.errors import AddressInUse, ConnectFailed, LocalProtocolError, TransportClosed
from ocm.protocol.address import Address, ip_of, is_loopback, make_address, peer_of, port_of
from ocm.protocol.limits import DATAGRAM_SIZE_MAX
from ocm.transport import pktinfo
from ocm.transport.base import Batch, DatagramPort, Network
from ocm.transport.line import BATCH_MAX, ROUNDS_MAX, SLOTS_MAX
from ocm.transport.link_model import PERFECT, LinkModel
from ocm.transport.memory import MemoryNetwork
from ocm.transport.sim import SimNetwork
from ocm.transport.sockets import SocketNetwork, bind_first
from ocm.transport.udp_plain import PlainPort

LOOPBACK = "127.0.0.1"


class Waiter(Protocol):
    def tell(self) -> None: ...

    async def until(self, holds: Callable[[], bool]) -> None: ...


class Inbox:
    """What an ``on_batch`` heard."""

    def __init__(self, changes: Waiter) -> None:
        self.calls = 0
        self.datagrams: list[tuple[bytes, Address]] = []
        self._changes = changes

    def __call__(self, batch: Batch) -> None:
        self.calls += 1
        self.datagrams += batch
        self._changes.tell()

    @property
    def payloads(self) -> list[bytes]:
        return [payload for payload, _ in self.datagrams]

    async def until(self, count: int) -> list[bytes]:
        await self._changes.until(lambda: len(self.datagrams) >= count)
        return self.payloads


class Narrow:
    """A system that takes one datagram, and no other before the loop's next turn."""

    def __init__(self) -> None:
        self._room = 1

    def take(self) -> bool:
        if not self._room:
            return False
        self._room = 0
        asyncio.get_running_loop().call_soon(self._again)
        return True

    def _again(self) -> None:
        self._room = 1


class NarrowSocket(socket.socket):
    """A real socket behind a ``Narrow`` system, whose senders may all have port 0."""

    narrow: Narrow | None = None
    port_0 = False

    def sendto(self, *args: Any) -> int:
        if self.narrow is not None and not self.narrow.take():
            raise BlockingIOError(errno.EAGAIN, "full")
        return super().sendto(*args)

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        size, sender = super().recvfrom_into(buffer, nbytes, flags)
        return size, (sender[0], 0, *sender[2:]) if self.port_0 else sender

    def sendmsg(self, *args: Any) -> int:
        if self.narrow is not None and not self.narrow.take():
            raise BlockingIOError(errno.EAGAIN, "full")
        return super().sendmsg(*args)

    def recvmsg_into(self, *args: Any) -> tuple[int, Any, int, Any]:
        size, ancillary, flags, sender = super().recvmsg_into(*args)
        return size, ancillary, flags, (sender[0], 0, *sender[2:]) if self.port_0 else sender


def make_network(kind: str) -> Network:
    match kind:
        case "memory":
            return MemoryNetwork()
        case "sim":
            return SimNetwork(LinkModel(seed=0, path=PERFECT))
        case _:
            return SocketNetwork(batched="mmsg" in kind)


class Bench:
    """One implementation under test: opens ports on loopback, ordinary and odd ones."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.host = None if "dual-stack" in kind else "0.0.0.0" if "any" in kind else LOOPBACK
        self.address = "10.0.0.1" if kind == "sim" else LOOPBACK
        self.is_multihomed = "multihomed" in kind
        self.network: Network = make_network(kind)
        self._narrow = MemoryNetwork(datagrams_per_turn=1)
        self._open: list[DatagramPort] = []

    async def open(
        self, on_batch: Callable[[Batch], None], *, port: int = 0, size_max: int = 4096, unsent_max: int = 100
    ) -> DatagramPort:
        opened = await self.network.open_port(
            self.host, port, on_batch, size_max=size_max, unsent_max=unsent_max, multihomed=self.is_multihomed
        )
        return self._keep(opened)

    async def open_narrow(self, on_batch: Callable[[Batch], None], *, unsent_max: int = 100) -> DatagramPort:
        """Open a port whose system takes one datagram per turn of the loop."""
        if self.kind == "memory":
            self.network = self._narrow
            return await self.open(on_batch, unsent_max=unsent_max)
        if self.kind == "sim":
            pytest.skip("a simulated system takes all; what must wait, waits on the link")
        return self._keep(self._odd(on_batch, unsent_max=unsent_max, narrow=Narrow()))

    async def open_hearing_port_0(self, on_batch: Callable[[Batch], None]) -> DatagramPort:
        """Open a port to which every datagram seems to come from port 0."""
        if self.kind in {"memory", "sim"}:
            pytest.skip("in memory nobody can have port 0")
        return self._keep(self._odd(on_batch, unsent_max=100, port_0=True))

    def close(self) -> None:
        for port in self._open:
            port.close()

    def _keep(self, port: DatagramPort) -> DatagramPort:
        self._open.append(port)
        return port

    def _odd(
        self, on_batch: Callable[[Batch], None], *, unsent_max: int, narrow: Narrow | None = None, port_0: bool = False
    ) -> DatagramPort:
        sock = bind_first("UDP", [make_address("::" if self.host is None else self.host, 0)])
        info = pktinfo.ask(sock) if self.is_multihomed else None
        if "mmsg" in self.kind:
            from ocm.transport.udp_mmsg import MmsgPort

            return MmsgPort(
                sock, on_batch, size_max=4096, unsent_max=unsent_max, calls=_odd_calls(narrow, port_0=port_0), info=info
            )
        odd = NarrowSocket(fileno=sock.detach())
        odd.narrow, odd.port_0 = narrow, port_0
        return PlainPort(odd, on_batch, size_max=4096, unsent_max=unsent_max, info=info)


def _odd_calls(narrow: Narrow | None, *, port_0: bool) -> Any:
    from ocm.transport.udp_mmsg import Calls, ffi, system_calls

    calls = system_calls()
    assert calls is not None
    real: Calls = calls

    class Odd:
        def recvmmsg(self, fd: int, headers: Any, count: int, flags: int, timeout: Any, /) -> int:
            got = real.recvmmsg(fd, headers, count, flags, timeout)
            for index in range(got if port_0 else 0):
                ffi.memmove(headers[index].msg_hdr.msg_name + 2, b"\0\0", 2)
            return got

        def sendmmsg(self, fd: int, headers: Any, count: int, flags: int, /) -> int:
            if narrow is None:
                return real.sendmmsg(fd, headers, count, flags)
            if not narrow.take():
                ffi.errno = errno.EAGAIN
                return -1
            return real.sendmmsg(fd, headers, 1, flags)

    return Odd()


SOCKETS = ("mmsg v4", "mmsg dual-stack", "plain v4", "plain dual-stack")
MULTIHOMED = (
    "mmsg any v4 multihomed",
    "mmsg dual-stack multihomed",
    "plain any v4 multihomed",
    "plain dual-stack multihomed",
)


@pytest.fixture(params=[*SOCKETS, *MULTIHOMED, "memory", "sim"])
async def bench(request: pytest.FixtureRequest, need_ipv6: Callable[[], None]) -> AsyncIterator[Bench]:
    if "mmsg" in request.param:
        udp_mmsg = pytest.importorskip("ocm.transport.udp_mmsg", reason="recvmmsg needs cffi")
        if udp_mmsg.system_calls() is None:
            pytest.skip("this system has no recvmmsg and sendmmsg")
    if "dual-stack" in request.param:
        need_ipv6()
    if "multihomed" in request.param and sys.platform != "linux":
        pytest.skip("only Linux tells where a datagram came to in a way that is read here")
    made = Bench(request.param)
    yield made
    made.close()


@pytest.fixture
def inbox(changes: Waiter) -> Inbox:
    return Inbox(changes)


def at(port: DatagramPort) -> Address:
    """Where others reach a port: an IPv4 address of 6 bytes, whatever the sender's family."""
    return make_address(LOOPBACK, port_of(port.local))


@contextmanager
def asking(host: str, port: DatagramPort) -> Generator[socket.socket]:
    """Send a datagram to a port by way of one of its machine's addresses; nobody else's is as patient."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(10)
        peer.sendto(b"hello", (host, port_of(port.local)))
        yield peer


def heard(peer: socket.socket, count: int) -> set[tuple[bytes, str]]:
    """What a peer got next, and from where."""
    found = [peer.recvfrom(100) for _ in range(count)]
    return {(payload, sender[0]) for payload, sender in found}


def ignore(batch: Batch) -> None:
    """Hear nothing."""


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def fill(port: DatagramPort, to: Address, payloads: Sequence[bytes]) -> None:
    """Fill a slot for each payload; flush is the caller's."""
    left = list(payloads)
    while left:
        for slot in port.slots(len(left)):
            payload = left.pop(0)
            slot.view[: len(payload)] = payload
            slot.size, slot.to = len(payload), to


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_sent_arrives_with_where_it_came_from(bench: Bench, inbox: Inbox) -> None:
    receiver, sender = await bench.open(inbox), await bench.open(ignore)
    sender.group([at(receiver)]).send(b"hello")
    assert await inbox.until(1) == [b"hello"]
    _, came_from = inbox.datagrams[0]
    assert port_of(came_from) == port_of(sender.local)
    assert ip_of(came_from) == ip_of(make_address(bench.address, 0))


async def test_an_answer_goes_to_the_address_a_datagram_came_from(bench: Bench, inbox: Inbox) -> None:
    asked, asking = None, await bench.open(inbox)

    def answer(batch: Batch) -> None:
        assert asked is not None
        for payload, came_from in batch:
            fill(asked, came_from, [payload + b" yourself"])
        asked.flush()

    asked = await bench.open(answer)
    asking.group([at(asked)]).send(b"hello")
    assert await inbox.until(1) == [b"hello yourself"]


@pytest.mark.parametrize("bench", MULTIHOMED, indirect=True)
async def test_what_goes_back_leaves_from_the_address_of_ours_that_was_reached(bench: Bench, inbox: Inbox) -> None:
    port = await bench.open(inbox)
    for reached in ("127.0.0.7", LOOPBACK, "127.0.0.8"):
        with asking(reached, port) as peer:
            path = inbox.datagrams[-1][1] if await inbox.until(len(inbox.datagrams) + 1) else b""
            fill(port, path, [b"from a slot"])
            fill(port, peer_of(path), [b"as the routes choose"])
            port.flush()
            port.group([path, peer_of(path)]).send(b"to a group")
            port.group([peer_of(path), path]).send(b"without its first", 0)
            assert heard(peer, 5) == {
                (b"from a slot", reached),
                (b"as the routes choose", LOOPBACK),
                (b"to a group", reached),
                (b"to a group", LOOPBACK),
                (b"without its first", reached),
            }


@pytest.mark.parametrize("bench", MULTIHOMED, indirect=True)
async def test_what_waited_leaves_from_the_address_that_was_reached(bench: Bench, inbox: Inbox) -> None:
    port = await bench.open_narrow(inbox)
    with asking("127.0.0.7", port) as peer:
        await inbox.until(1)
        path = inbox.datagrams[0][1]
        port.group([path, peer_of(path), path]).send(b"at last")
        async with asyncio.timeout(10):
            while port.flush():  # noqa: ASYNC110 - a count tells nobody that it changed
                await asyncio.sleep(0)
        assert [peer.recvfrom(100)[1][0] for _ in range(3)] == ["127.0.0.7", LOOPBACK, "127.0.0.7"]


async def test_only_a_multihomed_port_tells_of_our_end(bench: Bench, inbox: Inbox) -> None:
    receiver, sender = await bench.open(inbox), await bench.open(ignore)
    sender.group([at(receiver)]).send(b"hello")
    await inbox.until(1)
    _, came_from = inbox.datagrams[0]
    assert (came_from != peer_of(came_from)) == bench.is_multihomed


async def test_a_batch_is_oldest_first(bench: Bench, inbox: Inbox) -> None:
    receiver, sender = await bench.open(inbox), await bench.open(ignore)
    fill(sender, at(receiver), numbers(10))
    sender.flush()
    assert await inbox.until(10) == numbers(10)


async def test_more_than_a_turn_may_read_arrives_in_later_turns(bench: Bench, inbox: Inbox) -> None:
    receiver, sender = await bench.open(inbox), await bench.open(ignore)
    many = numbers(BATCH_MAX * ROUNDS_MAX + 10)
    fill(sender, at(receiver), many)
    sender.flush()
    assert await inbox.until(len(many)) == many
    assert inbox.calls > ROUNDS_MAX


async def test_on_batch_is_never_called_inside_the_call_that_caused_it(bench: Bench, inbox: Inbox) -> None:
    port = await bench.open(inbox)
    port.group([at(port)]).send(b"to myself")
    fill(port, at(port), [b"again"])
    port.flush()
    assert not inbox.calls
    assert await inbox.until(2) == [b"to myself", b"again"]


async def test_a_datagram_of_size_max_arrives_and_a_longer_one_is_dropped_and_counted(
    bench: Bench, inbox: Inbox
) -> None:
    receiver, sender = await bench.open(inbox, size_max=100), await bench.open(ignore)
    for size in (101, 5000, 100, 1000):
        sender.group([at(receiver)]).send(bytes(size))
    sender.group([at(receiver)]).send(b"end")
    assert await inbox.until(2) == [bytes(100), b"end"]
    assert (receiver.counters.received, receiver.counters.oversized) == (2, 3)


async def test_on_batch_is_not_called_for_a_batch_of_which_nothing_is_left(bench: Bench, inbox: Inbox) -> None:
    receiver, sender = await bench.open(inbox, size_max=100), await bench.open(ignore)
    group = sender.group([at(receiver)])
    group.send(bytes(101))
    await turns()
    group.send(b"end")
    await inbox.until(1)
    assert inbox.calls == 1
    assert receiver.counters.oversized == 1


async def test_a_datagram_from_port_0_is_dropped_and_counted(bench: Bench, inbox: Inbox) -> None:
    receiver, sender = await bench.open_hearing_port_0(inbox), await bench.open(inbox)
    sender.group([at(receiver), at(receiver), at(sender)]).send(b"hello")
    await inbox.until(1)
    async with asyncio.timeout(10):
        while receiver.counters.from_port_0 < 2:  # noqa: ASYNC110 - a count tells nobody that it changed
            await asyncio.sleep(0)
    assert inbox.payloads == [b"hello"]
    assert receiver.counters.received == 0


async def test_an_empty_datagram_is_a_datagram(bench: Bench, inbox: Inbox) -> None:
    receiver, sender = await bench.open(inbox), await bench.open(ignore)
    sender.group([at(receiver)]).send(b"")
    assert await inbox.until(1) == [b""]


async def test_local_is_where_the_port_is_bound_with_the_real_number_for_port_0(bench: Bench) -> None:
    port = await bench.open(ignore)
    assert port_of(port.local) > 0
    assert is_loopback(port.local) == (bench.kind != "sim" and bench.host == LOOPBACK)
    number = port_of(port.local)
    port.close()
    assert port_of((await bench.open(ignore, port=number)).local) == number


async def test_a_port_that_is_taken_is_in_use(bench: Bench) -> None:
    port = await bench.open(ignore)
    with pytest.raises(AddressInUse) as caught:
        await bench.open(ignore, port=port_of(port.local))
    assert (caught.value.kind, caught.value.port) == ("UDP", port_of(port.local))


@pytest.mark.parametrize("host", ["192.0.2.1", "no such name.invalid"])
async def test_an_address_that_is_not_ours_cannot_be_opened(bench: Bench, host: str) -> None:
    with pytest.raises(TransportClosed) as caught:
        await bench.network.open_port(host, 0, ignore, size_max=4096, unsent_max=1)
    assert not isinstance(caught.value, AddressInUse)


async def test_slots_are_lent_up_to_the_count_and_at_least_one(bench: Bench) -> None:
    port = await bench.open(ignore)
    assert len(port.slots(1)) == 1
    assert 1 <= len(port.slots(3)) <= 3
    assert 1 <= len(port.slots(10_000)) <= SLOTS_MAX
    assert len(port.slots(1)) == 1


async def test_no_slots_cannot_be_asked_for(bench: Bench) -> None:
    port = await bench.open(ignore)
    with pytest.raises(LocalProtocolError):
        port.slots(0)


async def test_a_slot_is_writable_and_holds_the_largest_datagram(bench: Bench, inbox: Inbox) -> None:
    receiver, sender = await bench.open(inbox), await bench.open(ignore)
    largest = b"\xa5" * DATAGRAM_SIZE_MAX
    fill(sender, at(receiver), [largest])
    sender.flush()
    assert await inbox.until(1) == [largest]


async def test_slots_come_with_size_0_and_one_left_so_sends_nothing(bench: Bench, inbox: Inbox) -> None:
    receiver, sender = await bench.open(inbox), await bench.open(ignore)
    for text in (b"first", b"second"):
        slots = sender.slots(5)
        assert [slot.size for slot in slots] == [0] * 5
        for slot in (slots[1], slots[3]):
            slot.view[: len(text)] = text
            slot.size, slot.to = len(text), at(receiver)
        sender.flush()
    assert await inbox.until(4) == [b"first"] * 2 + [b"second"] * 2
    assert sender.counters.sent == 4


async def test_flush_with_nothing_lent_sends_nothing(bench: Bench) -> None:
    port = await bench.open(ignore)
    assert port.flush() == 0
    assert port.counters.sent == 0


async def test_a_slot_asked_for_while_all_are_lent_flushes_first(bench: Bench, inbox: Inbox) -> None:
    receiver, sender = await bench.open(inbox), await bench.open(ignore)
    for text in numbers(SLOTS_MAX):
        fill(sender, at(receiver), [text])
    assert sender.counters.sent == 0
    sender.slots(1)
    assert await inbox.until(SLOTS_MAX) == numbers(SLOTS_MAX)


async def test_a_group_gets_the_same_bytes_each(bench: Bench, changes: Waiter) -> None:
    inboxes = [Inbox(changes) for _ in range(5)]
    receivers = [await bench.open(inbox) for inbox in inboxes]
    sender = await bench.open(ignore)
    sender.group([at(receiver) for receiver in receivers]).send(b"all")
    for inbox in inboxes:
        assert await inbox.until(1) == [b"all"]
    assert sender.counters.sent == 5


@pytest.mark.parametrize("members", [1, 2, 5])
async def test_a_group_skips_whom_it_is_told_and_nobody_the_next_time(
    bench: Bench, changes: Waiter, members: int
) -> None:
    inboxes = [Inbox(changes) for _ in range(members)]
    receivers = [await bench.open(inbox) for inbox in inboxes]
    sender = await bench.open(ignore)
    group = sender.group([at(receiver) for receiver in receivers])
    for skip in range(members):
        group.send(b"not %d" % skip, skip)
    group.send(b"all")
    for index, inbox in enumerate(inboxes):
        expected = [b"not %d" % skip for skip in range(members) if skip != index] + [b"all"]
        assert await inbox.until(members) == expected


async def test_a_group_keeps_its_members_when_the_list_it_was_made_from_changes(bench: Bench, inbox: Inbox) -> None:
    receiver, sender = await bench.open(inbox), await bench.open(ignore)
    addresses = [at(receiver)]
    group = sender.group(addresses)
    addresses.clear()
    group.send(b"still")
    assert await inbox.until(1) == [b"still"]


async def test_a_group_may_be_larger_than_what_one_call_takes(bench: Bench, inbox: Inbox) -> None:
    receiver, sender = await bench.open(inbox), await bench.open(ignore, unsent_max=5000)
    sender.group([at(receiver)] * 2500).send(b"x", 7)
    await inbox.until(1)
    assert sender.counters.sent == 2499
    assert sender.counters.dropped == 0


@pytest.mark.parametrize("bad", [b"", bytes(7), make_address(LOOPBACK, 0)], ids=["empty", "of 7 bytes", "port 0"])
async def test_a_destination_that_is_refused_costs_that_datagram_only(bench: Bench, inbox: Inbox, bad: bytes) -> None:
    receiver, sender = await bench.open(inbox), await bench.open(ignore)
    good = at(receiver)
    sender.group([bad, good, bad, good, bad]).send(b"group")
    for text, to in zip(numbers(5), (bad, good, bad, good, bad), strict=True):
        fill(sender, to, [text])
    assert sender.flush() == 0
    sender.group([bad, good]).send(b"only", 0)
    sender.group([good, bad]).send(b"nobody", 0)
    sender.group([bad]).send(b"nobody", 0)
    sender.group([bad]).send(b"nobody")
    assert await inbox.until(5) == [b"group", b"group", b"1", b"3", b"only"]
    assert sender.counters.sent == 5
    assert sender.counters.dropped == 8


async def test_a_destination_where_nobody_listens_never_costs_the_port(bench: Bench, inbox: Inbox) -> None:
    gone, receiver = await bench.open(ignore), await bench.open(inbox)
    nobody = at(gone)
    gone.close()
    group = receiver.group([nobody, at(receiver)])
    for text in numbers(20):
        group.send(text)
        await turns()
    assert await inbox.until(20) == numbers(20)


async def test_a_datagram_too_large_for_any_network_is_dropped_and_counted(bench: Bench, inbox: Inbox) -> None:
    receiver, sender = await bench.open(inbox), await bench.open(ignore)
    group = sender.group([at(receiver)])
    for size in (65_508, 70_000):
        group.send(bytes(size))
    group.send(b"end")
    assert await inbox.until(1) == [b"end"]
    assert (sender.counters.sent, sender.counters.dropped) == (1, 2)


async def test_what_the_system_does_not_take_waits_and_goes_out_in_order(bench: Bench, inbox: Inbox) -> None:
    sender = await bench.open_narrow(ignore)
    receiver = await bench.open(inbox)
    fill(sender, at(receiver), numbers(10))
    assert sender.flush() == 9
    assert sender.counters.sent == 1
    assert await inbox.until(10) == numbers(10)
    assert sender.flush() == 0
    assert (sender.counters.sent, sender.counters.dropped) == (10, 0)


async def test_what_is_sent_while_others_wait_queues_behind_them(bench: Bench, inbox: Inbox) -> None:
    sender = await bench.open_narrow(ignore)
    receiver = await bench.open(inbox)
    group = sender.group([at(receiver)] * 2)
    group.send(b"a")
    fill(sender, at(receiver), [b"b"])
    sender.flush()
    group.send(b"c", 1)
    await turns(1)
    group.send(b"d")
    assert await inbox.until(6) == [b"a", b"a", b"b", b"c", b"d", b"d"]


@pytest.mark.parametrize("skip", [0, 1, 3, None])
async def test_who_is_skipped_is_skipped_also_where_the_rest_must_wait(
    bench: Bench, changes: Waiter, skip: int | None
) -> None:
    inboxes = [Inbox(changes) for _ in range(4)]
    sender = await bench.open_narrow(ignore)
    receivers = [await bench.open(inbox) for inbox in inboxes]
    group = sender.group([at(receiver) for receiver in receivers])
    group.send(b"first", skip)
    group.send(b"second", skip)
    for index, inbox in enumerate(inboxes):
        if index != skip:
            assert await inbox.until(2) == [b"first", b"second"]
    await turns()
    assert skip is None or not inboxes[skip].calls


async def test_above_the_bound_the_oldest_that_wait_are_dropped_and_counted(bench: Bench, inbox: Inbox) -> None:
    sender = await bench.open_narrow(ignore, unsent_max=3)
    receiver = await bench.open(inbox)
    fill(sender, at(receiver), numbers(10))
    assert sender.flush() == 3
    assert sender.counters.dropped == 6
    assert await inbox.until(4) == [b"0", b"7", b"8", b"9"]


async def test_a_long_line_goes_out_whole(bench: Bench, inbox: Inbox) -> None:
    sender = await bench.open_narrow(ignore, unsent_max=1000)
    receiver = await bench.open(inbox)
    many = numbers(BATCH_MAX * 2)
    for text in many:
        sender.group([at(receiver)]).send(text)
    assert await inbox.until(len(many)) == many


async def test_a_closed_port_refuses_everything_but_close(bench: Bench, inbox: Inbox) -> None:
    receiver, port = await bench.open(inbox), await bench.open(ignore)
    group = port.group([at(receiver)])
    nobody = port.group([b""])
    port.close()
    port.close()
    for call in (
        lambda: port.slots(1),
        port.flush,
        lambda: port.group([at(receiver)]),
        lambda: group.send(b"x"),
        lambda: group.send(b"x", 0),
        lambda: nobody.send(b"x"),
    ):
        with pytest.raises(TransportClosed):
            call()


async def test_close_drops_what_waits_and_counts_it(bench: Bench, inbox: Inbox) -> None:
    sender = await bench.open_narrow(ignore)
    receiver = await bench.open(inbox)
    fill(sender, at(receiver), numbers(10))
    sender.flush()
    sender.close()
    assert sender.counters.dropped == 9
    await inbox.until(1)
    await turns()
    assert inbox.payloads == [b"0"]


async def test_on_batch_is_not_called_after_close_even_when_close_is_called_from_it(
    bench: Bench, changes: Waiter
) -> None:
    calls = 0

    def close_at_once(batch: Batch) -> None:
        nonlocal calls
        calls += 1
        receiver.close()
        changes.tell()

    receiver, sender = await bench.open(close_at_once), await bench.open(ignore)
    fill(sender, at(receiver), numbers(BATCH_MAX * 3))
    sender.flush()
    await changes.until(lambda: calls > 0)
    await turns()
    assert calls == 1


async def test_a_port_closed_before_what_arrived_is_handed_on_hears_nothing(bench: Bench, inbox: Inbox) -> None:
    receiver, sender = await bench.open(inbox), await bench.open(ignore)
    sender.group([at(receiver)]).send(b"late")
    receiver.close()
    await turns()
    assert not inbox.calls


async def test_a_name_resolves_to_addresses_and_a_number_to_itself(bench: Bench) -> None:
    assert list(await bench.network.resolve(LOOPBACK, 9001)) == [make_address(LOOPBACK, 9001)]
    assert list(await bench.network.resolve("::1", 9001)) == [make_address("::1", 9001)]
    found = await bench.network.resolve("localhost", 9001)
    assert found
    assert all(is_loopback(address) and port_of(address) == 9001 for address in found)


async def test_it_knows_from_which_address_of_ours_things_leave(bench: Bench) -> None:
    assert bench.network.source(make_address(bench.address, 9001)) == make_address(bench.address, 0)


@pytest.mark.parametrize("host", ["no such name.invalid", "a" * 70 + ".invalid", ""])
async def test_a_name_without_addresses_fails(bench: Bench, host: str) -> None:
    with pytest.raises(ConnectFailed, match="no such host name"):
        await bench.network.resolve(host, 9001)
