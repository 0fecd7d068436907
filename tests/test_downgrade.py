"""Plaintext only where the user typed ``tcrp://``: every client at every server, and every byte that crosses.

TLS is real here, over a network in memory whose every byte is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest

import ocm
from ocm.protocol.address import Address
from ocm.protocol.wire.sealed import ESCAPE
from ocm.transport.base import Accept, Batch, DatagramPort, Group, Slot, Stream, StreamHandler
from ocm.transport.certificate import fingerprint
from ocm.transport.memory import MemoryNetwork
from tests.client.stage import Machine
from tests.modern import Listener, until
from tests.peers import SERVER, TCP_PORT, UDP_PORT, Peer
from tests.security import a_certificate
from tests.virtual import virtual

SECRETS = ("the words of aiko", "aiko", "open sesame", "meadow")
"""What is said, by whom, with what password, and where: nothing of it is anybody else's business."""
WORDS, USER, PASSWORD, ROOM = SECRETS
PIN = fingerprint(a_certificate().key)
WRONG_PIN = "ab" * 32


# --- a network whose every byte is looked at --------------------------------------------------------------------


@dataclass
class Tape:
    """What a client sent."""

    streams: list[bytearray] = field(default_factory=list[bytearray])
    datagrams: list[bytes] = field(default_factory=list[bytes])

    @property
    def says_secrets(self) -> bool:
        """Whether anything of the user's can be read."""
        sent = [*map(bytes, self.streams), *self.datagrams]
        return any(secret.encode() in data for secret in SECRETS for data in sent)

    def check_sealed(self) -> None:
        """Show that nothing but TLS and sealed datagrams was sent."""
        assert not self.says_secrets
        for stream in self.streams:
            assert _is_tls(bytes(stream))
        for datagram in self.datagrams:
            assert datagram.startswith(ESCAPE)


def _is_tls(sent: bytes) -> bool:
    """Say whether bytes are records of TLS, to their end."""
    while sent:
        if sent[0] not in {20, 21, 22, 23} or sent[1:2] != b"\x03":
            return False
        sent = sent[5 + int.from_bytes(sent[3:5], "big") :]
    return True


class TappedStream:
    """Writes to a stream, and down what it writes."""

    def __init__(self, stream: Stream, tape: bytearray) -> None:
        self._stream = stream
        self._tape = tape

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, data: bytes) -> None:
        self._tape += data
        self._stream.write(data)


class TappedPort:
    """Sends through a port, and writes down what it sends."""

    def __init__(self, port: DatagramPort, tape: list[bytes]) -> None:
        self.local = port.local
        self.counters = port.counters
        self._port = port
        self._tape = tape
        self._lent: list[Slot] = []

    def slots(self, count: int) -> Sequence[Slot]:
        lent = self._port.slots(count)
        self._lent += lent
        return lent

    def flush(self) -> int:
        self._tape += [bytes(slot.view[: slot.size]) for slot in self._lent if slot.size]
        self._lent.clear()
        return self._port.flush()

    def group(self, addresses: Sequence[Address]) -> Group:
        raise NotImplementedError("clients have no groups")

    def close(self) -> None:
        self._port.close()


class Wiretap(Machine):
    """A machine whose every byte is written down."""

    def __init__(self, network: MemoryNetwork) -> None:
        super().__init__(network)
        self.tape = Tape()

    async def connect(
        self, host: str, port: int, accept: Accept, *, write_buffer_max: int, local: Address | None = None
    ) -> Stream:
        tape = bytearray()
        self.tape.streams.append(tape)

        def tapped(stream: Stream) -> StreamHandler:
            return accept(TappedStream(stream, tape))  # pyright: ignore[reportArgumentType]

        return await super().connect(host, port, tapped, write_buffer_max=write_buffer_max, local=local)

    async def open_port(
        self,
        host: str | None,
        port: int,
        on_batch: Callable[[Batch], None],
        *,
        size_max: int,
        unsent_max: int,
        multihomed: bool = False,
    ) -> DatagramPort:
        opened = await super().open_port(
            host, port, on_batch, size_max=size_max, unsent_max=unsent_max, multihomed=multihomed
        )
        return TappedPort(opened, self.tape.datagrams)


# --- servers ------------------------------------------------------------------------------------------------

Serve: TypeAlias = Callable[[MemoryNetwork], AbstractAsyncContextManager[object]]


def modern(classic: ocm.Reach) -> Serve:
    """Our server, with this certificate."""
    return lambda network: ocm.serve(
        f"tcrps://{SERVER}:{TCP_PORT}", network=network, certificate=a_certificate(), classic=classic
    )


def classic_only(network: MemoryNetwork) -> AbstractAsyncContextManager[object]:
    """A server that never heard of TLS."""
    return ocm.serve(f"tcrp://{SERVER}:{TCP_PORT}?udp={UDP_PORT}", network=network)


class Answerer(Peer):
    """Does something at the first bytes it hears."""

    def __init__(self, answer: bytes | None) -> None:
        super().__init__()
        self._answer = answer

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._answer is not None and len(self.chunks) == 1:
            self.send(self._answer)
            self.stream.close()


def saying(answer: bytes | None) -> Serve:
    """Somebody who answers with these bytes, or keeps silent."""

    @asynccontextmanager
    async def serve(network: MemoryNetwork) -> AsyncGenerator[None]:
        listener = await network.listen(
            None, TCP_PORT, lambda stream: Answerer(answer).begin(stream), write_buffer_max=9999
        )
        yield
        listener.close()

    return serve


class WebServer(Peer):
    """TLS with the very certificate that is pinned, and another protocol inside."""

    def __init__(self, protocols: list[str], tmp: str) -> None:
        super().__init__()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp)
        if protocols:
            context.set_alpn_protocols(protocols)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._in.write(data)
        with contextlib.suppress(ssl.SSLError):
            self._tls.do_handshake()
            self._tls.write(b"HTTP/1.1 200 OK\r\n\r\n")
        self.send(self._out.read())


@pytest.fixture
def pem(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("web") / "server.pem"
    path.write_bytes(a_certificate().chain + a_certificate().private_key)
    return str(path)


def web(protocols: list[str]) -> Callable[[str], Serve]:
    def with_pem(pem: str) -> Serve:
        @asynccontextmanager
        async def serve(network: MemoryNetwork) -> AsyncGenerator[None]:
            listener = await network.listen(
                None, TCP_PORT, lambda stream: WebServer(protocols, pem).begin(stream), write_buffer_max=99_999
            )
            yield
            listener.close()

        return serve

    return with_pem


def always(serve: Serve) -> Callable[[str], Serve]:
    return lambda _: serve


@asynccontextmanager
async def nobody(_: MemoryNetwork) -> AsyncGenerator[None]:
    yield


MODERN = {f"modern, classic {reach}": always(modern(reach)) for reach in ("off", "loopback", "lan", "on")}
CLASSIC = {"classic only": always(classic_only)}
OTHERS = {
    "a web server without ALPN": web([]),
    "a web server with another ALPN": web(["http/1.1", "h2"]),
    "an HTTP server": always(saying(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    "who greets as SSH does": always(saying(b"SSH-2.0-OpenSSH_9\r\n")),
    "who sends an alert": always(saying(b"\x15\x03\x03\x00\x02\x02\x28")),
    "who hangs up": always(saying(b"")),
    "who keeps silent": always(saying(None)),
    "nobody": always(nobody),
}
SERVERS = MODERN | CLASSIC | OTHERS
URLS = {
    "pinned": f"tcrps://{SERVER}:{TCP_PORT}#fp={PIN}",
    "pinned wrongly": f"tcrps://{SERVER}:{TCP_PORT}#fp={WRONG_PIN}",
    "not pinned": f"tcrps://{SERVER}:{TCP_PORT}",
    "without a scheme": f"{SERVER}:{TCP_PORT}",
    "classic": f"tcrp://{SERVER}:{TCP_PORT}?udp={UDP_PORT}",
}
POLICIES = {"modern": ocm.Policy(), "mixed": ocm.Policy(ocm.Access.MIXED), "none": None}


async def talk(url: str, here: Machine, *, policy: ocm.Policy | None = None) -> ocm.Receipt:
    async with (
        ocm.connect(url, user=USER, password=PASSWORD, network=here) as client,
        client.create(ROOM, policy=policy) as room,
    ):
        receipt = await room.send(WORDS)
        if room.encrypted:
            await until(lambda: room.path.kind is ocm.PathKind.UDP)
            await room.send(WORDS)
        return receipt


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("client", [name for name in URLS if name != "classic"])
@pytest.mark.parametrize("server", SERVERS)
@virtual
async def test_an_encrypted_address_says_nothing_in_clear_to_anybody(
    server: str, client: str, policy: str, pem: str
) -> None:
    network = MemoryNetwork()
    here = Wiretap(network)
    async with SERVERS[server](pem)(network.host(SERVER)):
        if client == "pinned" and server in MODERN:
            receipt = await talk(URLS[client], here, policy=POLICIES[policy])
            assert receipt.delivery is ocm.Delivery.IN_ROOM
            assert here.tape.datagrams
        else:
            with pytest.raises(ocm.ConnectFailed) as refused:
                await talk(URLS[client], here, policy=POLICIES[policy])
            if server in MODERN:
                assert isinstance(refused.value, ocm.ServerUntrusted)
            assert not here.tape.datagrams
    here.tape.check_sealed()
    assert here.ports_open() == 0


@pytest.mark.parametrize("server", ["classic only", "who hangs up", "an HTTP server"])
def test_a_client_that_falls_back_is_found(server: str, pem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it gets in or not: what it says in clear is seen."""
    honest = talk

    async def planted(url: str, here: Machine, *, policy: ocm.Policy | None = None) -> ocm.Receipt:
        try:
            return await honest(url, here, policy=policy)
        except ocm.ConnectFailed:
            with contextlib.suppress(ocm.OcmError):
                await honest(URLS["classic"], here)
            raise  # as if nothing had been said

    monkeypatch.setitem(globals(), "talk", planted)
    with pytest.raises(AssertionError):
        test_an_encrypted_address_says_nothing_in_clear_to_anybody(server, "pinned", "none", pem)


@pytest.mark.parametrize("server", SERVERS)
@virtual
async def test_a_classic_address_is_what_one_types_to_be_read(server: str, pem: str) -> None:
    network = MemoryNetwork()
    here = Wiretap(network)
    reached = server in {"modern, classic on", "modern, classic lan", "classic only"}  # 10.0.0.1 is a local network's
    async with SERVERS[server](pem)(network.host(SERVER)):
        if reached:
            assert (await talk(URLS["classic"], here)).delivery is ocm.Delivery.SENT
        else:
            with pytest.raises(ocm.OcmError):
                await talk(URLS["classic"], here)
    assert here.tape.says_secrets is (server != "nobody")


# --- what happens later ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("later", SERVERS)
@virtual
async def test_whoever_is_there_when_a_connection_was_lost_is_told_nothing(later: str, pem: str) -> None:
    network = MemoryNetwork()
    here = Wiretap(network)

    async def stay() -> None:
        async with ocm.connect(URLS["pinned"], user=USER, password=PASSWORD, network=here) as client:
            room = await client.create(ROOM).__aenter__()
            await room.send(WORDS)
            running.set()
            await gone.wait()
            room.post(WORDS)
            await Listener(room).end()

    running, gone = asyncio.Event(), asyncio.Event()
    async with modern("on")(network.host(SERVER)):
        staying = asyncio.create_task(stay())
        await running.wait()
        here.dead = True  # so that it comes back to the other
        here.cut()
        await asyncio.sleep(0.1)
    here.dead = False
    async with SERVERS[later](pem)(network.host(SERVER)):
        gone.set()
        await asyncio.sleep(60)
    staying.cancel()
    await asyncio.wait([staying])
    here.tape.check_sealed()


@virtual
async def test_a_connection_that_is_cut_at_any_byte_of_its_beginning_gives_nothing_away() -> None:
    for size in (*range(0, 400, 37), 600, 1000, 2000):
        network = MemoryNetwork()
        here = Wiretap(network)
        async with modern("on")(network.host(SERVER)):

            def cut_after(here: Wiretap, size: int) -> None:
                if sum(map(len, here.tape.streams)) > size:
                    here.cut()

            talking = asyncio.create_task(talk(URLS["pinned"], here))
            for _ in range(50):
                cut_after(here, size)
                await asyncio.sleep(0)
            talking.cancel()
            await asyncio.wait([talking])
        here.tape.check_sealed()
