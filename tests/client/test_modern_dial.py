"""Getting through to a server of TCRP/2, or not: every way it can fail, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

import ocm
from ocm.api import unvouched_key
from ocm.protocol.address import make_address
from ocm.testing import Network
from ocm.transport.base import StreamHandler
from ocm.transport.certificate import fingerprint
from ocm.transport.memory import MemoryNetwork
from ocm.transport.tls import TlsServer
from tests.client.stage import Machine
from tests.modern import URL, Listener, now_s, simulated, sitting, until
from tests.peers import SERVER, Peer
from tests.security import a_certificate
from tests.virtual import Cut, cut_in_every_turn, quiet, virtual

ANYWHERE = f"tcrps://{SERVER}:0"
PORT = 4000
PIN = "ab" * 32


@contextlib.asynccontextmanager
async def speaking(machine: Machine) -> AsyncGenerator[str]:
    """Run a server on a memory network; give its URL."""
    async with ocm.serve(
        ANYWHERE, network=machine.network.host(SERVER), certificate=a_certificate(), classic="on"
    ) as server:
        yield server.url


def machine() -> Machine:
    return Machine(MemoryNetwork())


async def enter(url: str, network: Machine, **options: Any) -> None:
    async with ocm.connect(url, user="aiko", network=network, **options) as client, client.create("r"):
        pass


# --- who answers --------------------------------------------------------------------------------------------


@virtual
async def test_a_server_that_is_the_pinned_one_is_entered_over_real_tls() -> None:
    here = machine()
    async with speaking(here) as url, ocm.connect(url, user="aiko", network=here) as client, client.create("r") as room:
        assert (await room.send("hello")).delivery is ocm.Delivery.IN_ROOM
        await until(lambda: room.path.kind is ocm.PathKind.UDP)
        assert here.ports_open() == 1
    assert here.ports_open() == 0


@virtual
async def test_a_server_with_another_key_is_not_trusted_and_says_which_it_has() -> None:
    here = machine()
    async with speaking(here) as url:
        start_s = now_s()
        with pytest.raises(ocm.ServerUntrusted, match="not the pinned one") as refused:
            await enter(url.partition("#")[0] + f"#fp={PIN}", here)
        assert url.endswith(refused.value.fingerprint)
        assert now_s() - start_s < 1
        with pytest.raises(ocm.ServerUntrusted, match="nobody vouches") as refused:
            await enter(url.partition("#")[0], here)
        assert url.endswith(refused.value.fingerprint)
    assert here.ports_open() == 0


@pytest.mark.parametrize(
    ("says", "closes"),
    [(b"", True), (b"HTTP/1.1 400 Bad Request\r\n\r\n", True), (b"\0" * 64, False), (b"\x15\x03\x01\0\2\2\x28", True)],
)
@virtual
async def test_what_speaks_no_tls_is_no_server_of_ours(says: bytes, closes: bool) -> None:
    def answer(peer: Peer) -> None:
        if says:
            peer.send(says)
        if closes:
            peer.stream.close()

    here = machine()
    async with answering(here, answer) as url:
        with pytest.raises(ocm.HandshakeFailed):
            await enter(url, here)
    assert here.ports_open() == 0


@virtual
async def test_nobody_there_is_said_at_once() -> None:
    here = machine()
    start_s = now_s()
    with pytest.raises(ocm.ConnectFailed):
        await enter(f"tcrps://{SERVER}:1#fp={PIN}", here)
    with pytest.raises(ocm.ConnectFailed):
        await enter(f"tcrps://nowhere.example#fp={PIN}", here)
    assert now_s() - start_s < 1
    assert here.ports_open() == 0


@virtual
async def test_a_server_that_never_answers_is_given_up_after_half_a_minute() -> None:
    def say_nothing(_peer: Peer) -> None:
        """Accept, and no more."""

    here = machine()
    async with answering(here, say_nothing) as url:
        start_s = now_s()
        with pytest.raises(ocm.ConnectFailed, match="no answer"):
            await enter(url, here)
        assert now_s() - start_s == pytest.approx(30, abs=1)
        here.dead = True
        with pytest.raises(ocm.ConnectFailed, match="no answer"):
            await enter(url, here)
    assert here.ports_open() == 0


@pytest.mark.parametrize(
    ("says", "error", "text"),
    [
        (b"", ocm.TransportClosed, "did not say that it knows us"),
        (b"\0" * 64, ocm.RemoteProtocolError, "does not keep to"),
        (b"\x00\x13\x00" + b"\0" * 29 + b"{}", ocm.RemoteProtocolError, "does not keep to"),
        (None, ocm.TransportClosed, "did not say that it knows us"),
    ],
)
@virtual
async def test_a_server_that_speaks_tls_and_nothing_sensible_after_it(
    says: bytes | None, error: type[Exception], text: str
) -> None:
    here = machine()
    certificate = a_certificate()
    async with odd_server(here, TlsServer(certificate), says) as url:
        with pytest.raises(error, match=text):
            await enter(url, here)
    assert here.ports_open() == 0


@virtual
async def test_addresses_are_tried_one_after_the_other() -> None:
    here = machine()
    async with speaking(here) as url:
        port = int(url.partition("#")[0].rpartition(":")[2])
        here.addresses = [make_address("10.7.7.7", port), make_address(SERVER, port)]
        await enter(url, here)
        here.addresses = [make_address(SERVER, port), make_address("10.7.7.7", port)]
        with pytest.raises(ocm.ServerUntrusted):  # it says more than that nobody is at the other address
            await enter(url.partition("#")[0] + f"#fp={PIN}", here)


# --- what fails behind the client's back ----------------------------------------------------------------------


class Oops(Exception):
    """No error of ocm's."""


@virtual
async def test_what_fails_while_it_reconnects_ends_the_block_and_is_raised_from_it() -> None:
    here = machine()

    async def run(url: str) -> None:
        async with ocm.connect(url, user="aiko", network=here) as client, client.create("r") as room:
            await room.send("hello")
            here.broken = Oops()
            here.cut()
            await Listener(room).end()

    async with speaking(here) as url:
        with pytest.raises(Oops):
            await run(url)
        await quiet()
        assert here.ports_open() == 0


@virtual
async def test_a_mistake_of_ours_behind_the_clients_back_is_not_only_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine()

    async def run(url: str) -> None:
        async with ocm.connect(url, user="aiko", network=here) as client, client.create("r") as room:
            await room.send("hello")
            monkeypatch.setattr("ocm.protocol.agent.agent.read_sealed", wrong)
            await asyncio.sleep(100)

    def wrong(data: bytes) -> None:
        raise Oops

    async with speaking(here) as url:
        with pytest.raises(Oops):
            await run(url)
    assert here.ports_open() == 0


@virtual
async def test_a_machine_without_a_free_port_says_so_and_goes_on_when_there_is_one() -> None:
    here = machine()
    async with speaking(here) as url:
        here.portless = True
        with pytest.raises(ocm.TransportClosed, match="no port"):
            await enter(url, here)
        here.portless = False
        await enter(url, here)


@virtual
async def test_a_client_is_of_no_use_after_its_block() -> None:
    here = machine()
    async with speaking(here) as url:
        async with ocm.connect(url, user="aiko", network=here) as client:
            pass
        with pytest.raises(ocm.LocalProtocolError, match="has ended"):
            async with client.create("r"):
                pass
        assert not here.streams


@virtual
async def test_rooms_that_were_not_left_end_with_the_client() -> None:
    here = machine()
    async with speaking(here) as url:
        async with ocm.connect(url, user="aiko", network=here) as client:
            room = await client.create("r").__aenter__()
            listener = Listener(room)
            waiting = asyncio.create_task(room.history())
            await room.send("hello")
            sending = asyncio.create_task(room.send("too late"))
            await asyncio.sleep(0)
        await listener.end()
        assert listener.ended is None
        with pytest.raises(ocm.SendRefused):
            await sending
        with contextlib.suppress(ocm.TransportClosed):
            await waiting
        await room.leave()
        assert room.members() == ("aiko",)


@simulated
async def test_a_server_that_does_not_hang_up_delays_the_end_by_two_seconds(network: Network) -> None:
    async with ocm.serve(URL) as server:
        async with ocm.connect(server.url, user="aiko") as client:
            room = await client.create("r").__aenter__()
            await room.send("hello")
            network.cut("server")
            start_s = now_s()
        assert now_s() - start_s == pytest.approx(2, abs=0.1)
        network.heal("server")


# --- cancelled ----------------------------------------------------------------------------------------------


async def stay(url: str, here: Machine) -> None:
    """Enter, talk, ask, lose the connection, find it, leave."""
    async with ocm.connect(url, user="aiko", network=here) as client, client.create("r") as room:
        room.post("one")
        await room.send("two")
        await room.fetch_members()
        await room.history()
        here.cut()
        await asyncio.sleep(0.3)
        await room.send("three")


def test_cancelled_at_any_moment_a_stay_leaves_nothing_open_and_nobody_behind() -> None:
    async def play(cut: Cut) -> None:
        here = machine()
        async with ocm.serve(ANYWHERE, network=here.network.host(SERVER), certificate=a_certificate()) as server:
            await cut.follow(stay(server.url, here))
            await asyncio.sleep(3)
            assert server.status().connections == 0
            assert here.ports_open() == 0
            assert server.status().hub.members == 0

    cut_in_every_turn(play)


@simulated
async def test_an_entry_that_is_given_up_leaves_no_member_behind(network: Network) -> None:
    network.link("ben", delay_s=0.1)
    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True) as hosted:
        for wait_ms in range(0, 2000, 50):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_ms / 1000):
                    async with sitting(server.url, "ben"):
                        pass
            await asyncio.sleep(5)
            assert await hosted.fetch_members() == ("aiko",)


# --- a stage for servers that are none of ours ------------------------------------------------------------------


class Odd(Peer):
    """Does something once it hears something."""

    def __init__(self, act: Callable[[Peer], None]) -> None:
        super().__init__()
        self._act = act

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if len(self.chunks) == 1:
            self._act(self)


@contextlib.asynccontextmanager
async def answering(here: Machine, act: Callable[[Peer], None]) -> AsyncGenerator[str]:
    def accept(stream: Any) -> StreamHandler:
        return Odd(act).begin(stream)

    listener = await here.network.host(SERVER).listen(None, PORT, accept, write_buffer_max=65_536)
    yield f"tcrps://{SERVER}:{PORT}#fp={PIN}"
    listener.close()


@contextlib.asynccontextmanager
async def odd_server(here: Machine, security: TlsServer, says: bytes | None) -> AsyncGenerator[str]:
    """Set up TLS as it should be, then say something else than TCRP/2; None: hang up."""

    def begin(secure: Any) -> StreamHandler:
        peer = Peer()
        peer.begin(secure)
        if says is None:
            secure.close()
        elif says:
            secure.write(says)
        return peer

    def failed(error: Exception) -> None:
        raise error

    def accept(stream: Any) -> StreamHandler:
        return security.begin(stream, begin, failed)

    listener = await here.network.host(SERVER).listen(None, PORT, accept, write_buffer_max=65_536)
    yield f"tcrps://{SERVER}:{PORT}#fp={fingerprint(security.key)}"
    listener.close()


# --- looking at a key ---------------------------------------------------------------------------------------


@virtual
async def test_a_key_is_looked_at_without_a_word_whatever_the_address_pins() -> None:
    here = machine()
    async with speaking(here) as url:
        bare, _, pin = url.partition("#fp=")
        assert await unvouched_key(bare, network=here) == pin
        assert await unvouched_key(f"{bare}#fp={PIN}", network=here) == pin
    assert here.ports_open() == 0


@pytest.mark.parametrize("url", ["tcrp://127.0.0.1", "tcrps://127.0.0.1:0"])
async def test_only_an_encrypted_server_has_a_key(url: str) -> None:
    with pytest.raises(ocm.LocalProtocolError, match="has a key"):
        await unvouched_key(url)


@virtual
async def test_a_key_that_is_not_shown_is_given_up() -> None:
    def say_nothing(_peer: Peer) -> None:
        """Accept, and no more."""

    here = machine()
    async with answering(here, say_nothing) as url:
        with pytest.raises(ocm.ConnectFailed, match="no answer"):
            await unvouched_key(url, network=here)
    with pytest.raises(ocm.ConnectFailed):
        await unvouched_key(f"tcrps://{SERVER}:1", network=here)
    assert here.ports_open() == 0
