"""A server of TCRP/2 that says whatever it is told to: names that no honest server lets in, texts, reasons."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ocm.protocol.wire.classic import Stage
from ocm.protocol.wire.frames import Message, write_frame
from ocm.protocol.wire.records import (
    ALPN,
    PAYLOAD_SIZE_MAX,
    PLAINTEXT_FLAG,
    Authenticate,
    Authenticated,
    Closing,
    Create,
    Denied,
    Done,
    Greeting,
    Hello,
    History,
    Join,
    MemberPage,
    MemberRow,
    Members,
    Op,
    Pages,
    Payload,
    RecordReader,
    RoomRequest,
    Seated,
    write_frames_record,
    write_record,
)
from ocm.protocol.wire.records import VERSION as PROTOCOL
from ocm.transport.certificate import Certificate, fingerprint
from tests.security import a_certificate

HANDLE, LOG = 1, "0f" * 16
AIKO, STRANGER = 1, 2
"""Member ids: who comes, and who says what the test wants said."""


@dataclass(frozen=True, kw_only=True)
class Lies:
    """What to say to whoever comes."""

    names: Sequence[str] = ()
    """Of members who are there already."""
    past: Sequence[str] = ()
    """Texts of the history."""
    entries: Sequence[tuple[int, bytes]] = ()
    """Kinds and bodies that go on from there, by the members of ``names`` in turn."""
    refusal: Denied | None = None
    """The answer to who wants to enter."""
    closing: Closing | None = None
    """Said behind the entries, which ends the session; the next one is refused."""


class _Liar:
    def __init__(self, lies: Lies) -> None:
        self._lies = lies

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        records = RecordReader()
        records.payload_size_max = PAYLOAD_SIZE_MAX
        try:
            while data := await reader.read(65_536):
                records.feed(data)
                while (record := records.next()) is not None:
                    said = record.read()
                    if said is not None:
                        writer.write(self._answer(said))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    def _answer(self, said: Payload) -> bytes:
        lies = self._lies
        match said:
            case Hello():
                return write_record(Op.HELLO, Stage.STATUS, GREETING)
            case Authenticate():
                return write_record(Op.AUTH, Stage.COMPLETE, AUTHENTICATED)
            case Create(id=number) | Join(id=number):
                if lies.refusal is not None:
                    denied = Denied(id=number, code=lies.refusal.code, message=lies.refusal.message)
                    return write_record(Op.JOIN, Stage.STATUS, denied)
                op = Op.CREATE if isinstance(said, Create) else Op.JOIN
                return write_record(op, Stage.COMPLETE, self._seated(number))
            case History(id=number, first=first, count=count):
                past = [
                    _message(first + at, 0, text.encode(errors="replace"), flags=1)
                    for at, text in enumerate(lies.past[-count:])
                ]
                pages = Pages(id=number, handle=HANDLE, count=len(past), oldest=1, head=self._head)
                said_now = b"".join(past) + write_record(Op.HISTORY, Stage.COMPLETE, pages)
                return said_now + self._go_on()
            case Members(id=number):
                return write_record(Op.MEMBERS, Stage.COMPLETE, MemberPage(id=number, members=self._rows()))
            case RoomRequest(id=number):
                return write_record(Op.LEAVE, Stage.COMPLETE, Done(id=number))
            case _:
                return b""

    @property
    def _head(self) -> int:
        return max(1, len(self._lies.past))

    def _rows(self) -> list[MemberRow]:
        named = [MemberRow(STRANGER + at, name, PLAINTEXT_FLAG) for at, name in enumerate(self._lies.names)]
        return [MemberRow(AIKO, "aiko", 0), *named]

    def _seated(self, number: int) -> Seated:
        return Seated(
            id=number,
            member=AIKO,
            handle=HANDLE,
            log=LOG,
            head=self._head,
            oldest=1,
            start=self._head,
            mark=0,
            resumed=False,
            access="mixed",
            lifetime="close",
            durable=False,
            host=AIKO,
            members=self._rows(),
        )

    def _go_on(self) -> bytes:
        """What happens once the history was read."""
        lies = self._lies
        said = b"".join(
            _message(self._head + 1 + at, kind, body, flags=2, sender=STRANGER + at % max(1, len(lies.names)))
            for at, (kind, body) in enumerate(lies.entries)
        )
        return said if lies.closing is None else said + write_record(Op.CLOSE, Stage.REQUEST, lies.closing)


GREETING = Greeting(
    version=PROTOCOL, suite=1, secret="5e" * 32, durability="\x1b[2Jdisk", burst=100, rate=100.0, body_max=60_000
)
AUTHENTICATED = Authenticated(client="c1" * 16, resumed=False, secret="5e" * 32, connection="c0" * 8, udp_port=0)


def _message(seq: int, kind: int, body: bytes, *, flags: int, sender: int = STRANGER) -> bytes:
    return write_frames_record(write_frame(Message(HANDLE, seq, sender, seq, 1_700_000_000_000, kind, flags, body)))


@asynccontextmanager
async def lying(lies: Lies) -> AsyncGenerator[str]:
    """Run the server; give its address, pinned."""
    certificate = a_certificate()
    liar = _Liar(lies)
    server = await asyncio.start_server(liar.talk, "127.0.0.1", 0, ssl=_context(certificate))
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"tcrps://127.0.0.1:{port}#fp={fingerprint(certificate.key)}"


def _context(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([ALPN])
    with TemporaryDirectory() as folder:
        chain, key = Path(folder, "chain"), Path(folder, "key")
        chain.write_bytes(certificate.chain)
        key.write_bytes(certificate.private_key)
        context.load_cert_chain(chain, key)
    return context
