"""What only real TLS has: versions, names, tickets, key logs, and peers that bend its rules."""

from __future__ import annotations

import ssl
import stat
import struct
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ocm.errors import CertificateFailed, HandshakeFailed, ServerUntrusted, TransportClosed
from ocm.transport.base import Authorities, Pinned, StreamHandler, Trust, Unknown
from ocm.transport.certificate import Certificate, fingerprint
from ocm.transport.secure import REPLIES_SIZE_MAX, SecureEnd
from ocm.transport.tls import RECORD_SIZE_MAX, TlsClient, TlsServer, _TlsChannel
from tests.security import Below, Heard, a_certificate, assert_broken, assert_failed, joined, move, turns

KEY_UPDATE = b"\x18\x00\x00\x01\x01"
"""The handshake message that asks for an answer of its kind (RFC 8446 section 4.6.3)."""


def context(*, server_side: bool, alpn: str | None = "tcrp/2") -> ssl.SSLContext:
    """Return what other programs may use, which check nothing."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    if server_side:
        with tempfile.NamedTemporaryFile() as file:
            file.write(a_certificate().chain + a_certificate().private_key)
            file.flush()
            made.load_cert_chain(file.name)
    else:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if alpn is not None:
        made.set_alpn_protocols([alpn])
    return made


class Raw:
    """Another program's end of a stream."""

    def __init__(self, made: ssl.SSLContext, *, server_side: bool, host: str | None = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = made.wrap_bio(self.incoming, self.outgoing, server_side=server_side, server_hostname=host)
        self.error: ssl.SSLError | None = None

    def shake_with(self, below: Below, handler: StreamHandler) -> None:
        """Shake hands as far as both sides like it."""
        for _ in range(4):
            self.incoming.write(below.take())
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                self.error = self.error or error
            if said := self.outgoing.read():
                handler.data_received(said)


def against_server(made: ssl.SSLContext) -> tuple[Raw, Heard, Below, StreamHandler]:
    """Return another client, and what our server made of it."""
    heard, below, raw = Heard(), Below(), Raw(made, server_side=False)
    handler = TlsServer(a_certificate()).begin(below, heard.accept, heard.fail)
    raw.shake_with(below, handler)
    return raw, heard, below, handler


def against_client(made: ssl.SSLContext, trust: Trust | None = None) -> tuple[Raw, Heard, Below, StreamHandler]:
    """Return another server, and what our client made of it."""
    heard, below, raw = Heard(), Below(), Raw(made, server_side=True)
    trust = trust or Pinned(fingerprint(a_certificate().key))
    handler = TlsClient().begin(below, trust, heard.accept, heard.fail)
    raw.shake_with(below, handler)
    return raw, heard, below, handler


# --- what is agreed on ------------------------------------------------------------------------------------------


async def test_other_programs_that_speak_tcrp_2_are_welcome() -> None:
    raw, server, _, handler = against_server(context(server_side=False))
    assert server.events == ["secure"]
    assert raw.tls.version() == "TLSv1.3"
    raw.tls.write(b"hello")
    handler.data_received(raw.outgoing.read())
    assert server.data == b"hello"
    _, client, *_ = against_client(context(server_side=True))
    assert client.events == ["secure"]


@pytest.mark.parametrize("alpn", [None, "h2", "tcrp/1", "tcrp/22"])
async def test_a_client_of_another_protocol_is_refused(alpn: str | None) -> None:
    raw, server, below, _ = against_server(context(server_side=False, alpn=alpn))
    assert raw.error is None  # to it, all is well
    await turns()
    assert str(assert_failed(server)) == "the other side does not speak tcrp/2"
    assert below.ended == "closed"


@pytest.mark.parametrize("alpn", [None, "h2"])
async def test_a_server_of_another_protocol_is_refused_and_hears_nothing(alpn: str | None) -> None:
    raw, client, below, _ = against_client(context(server_side=True, alpn=alpn))
    await turns()
    assert str(assert_failed(client)) == "the other side does not speak tcrp/2"
    assert below.ended == "closed"
    with pytest.raises(ssl.SSLWantReadError):
        raw.tls.do_handshake()


async def test_a_client_of_older_tls_is_refused_and_told_why() -> None:
    made = context(server_side=False)
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    raw, server, below, _ = against_server(made)
    await turns()
    assert "unsupported protocol" in str(assert_failed(server))
    assert raw.error is not None
    assert "ALERT_PROTOCOL_VERSION" in str(raw.error)
    assert below.ended == "closed"


async def test_a_server_of_older_tls_is_refused() -> None:
    made = context(server_side=True)
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    raw, client, *_ = against_client(made)
    await turns()
    assert_failed(client)
    assert raw.error is not None


async def test_a_server_gives_no_session_tickets_and_keeps_no_sessions() -> None:
    made = TlsServer(a_certificate())
    raw, heard, below = Raw(context(server_side=False), server_side=False), Heard(), Below()
    raw.shake_with(below, made.begin(below, heard.accept, heard.fail))
    heard.stream.write(b"the first that comes")
    raw.incoming.write(below.take())
    assert raw.tls.read() == b"the first that comes"
    assert raw.tls.session is None or not raw.tls.session.has_ticket
    assert not raw.tls.session_reused
    assert made._context.session_stats()["number"] == 0


async def test_a_client_that_saves_a_session_gets_none_to_resume() -> None:
    made = context(server_side=False)
    server = TlsServer(a_certificate())
    session = None
    for _ in range(2):
        raw, heard, below = Raw(made, server_side=False), Heard(), Below()
        if session is not None:
            raw.tls.session = session
        raw.shake_with(below, server.begin(below, heard.accept, heard.fail))
        session = raw.tls.session
        assert heard.events == ["secure"]
        assert not raw.tls.session_reused


async def test_tickets_of_another_server_are_no_harm() -> None:
    made = context(server_side=True)
    made.num_tickets = 10
    raw, client, below, handler = against_client(made)
    raw.tls.write(b"behind the tickets")
    handler.data_received(raw.outgoing.read())
    assert client.data == b"behind the tickets"
    assert not below.sent


@pytest.mark.parametrize(
    ("trust", "told"),
    [
        (Pinned("0" * 64), None),
        (Unknown(), None),
        (Authorities("chat.example"), "chat.example"),
        (Authorities("192.0.2.1"), None),
    ],
    ids=repr,
)
async def test_only_where_an_authority_is_asked_the_name_of_the_host_is_told(trust: Trust, told: str | None) -> None:
    made, names = context(server_side=True), list[str | None]()
    made.sni_callback = lambda _, name, __: names.append(name)
    _, client, *_ = against_client(made, trust)
    assert names == [told]
    await turns()
    assert isinstance(assert_failed(client), ServerUntrusted)


@pytest.mark.parametrize("trust", [Pinned("0" * 64), Unknown()], ids=repr)
async def test_to_a_server_that_is_not_the_pinned_one_a_client_says_no_more_than_hello(trust: Trust) -> None:
    raw, heard, below = Raw(context(server_side=True), server_side=True), Heard(), Below()
    handler = TlsClient().begin(below, trust, heard.accept, heard.fail)
    raw.incoming.write(below.take())
    with pytest.raises(ssl.SSLWantReadError):
        raw.tls.do_handshake()
    handler.data_received(raw.outgoing.read())
    assert below.sent == b""
    assert below.ended == "closed"


async def test_a_server_that_nobody_vouches_for_is_told_so() -> None:
    raw, client, *_ = against_client(context(server_side=True), Authorities("localhost"))
    await turns()
    failure = assert_failed(client)
    assert isinstance(failure, ServerUntrusted)
    assert str(failure) == "nobody vouches for the server's certificate (self-signed certificate)"
    assert failure.fingerprint == fingerprint(a_certificate().key)
    assert raw.error is not None
    assert "UNKNOWN_CA" in str(raw.error)


async def test_a_certificate_that_only_openssl_can_read_is_refused() -> None:
    own = a_certificate()
    (readable,) = x509.load_pem_x509_certificates(own.chain)
    der = readable.public_bytes(Encoding.DER).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05", 1)
    strange = replace(own, chain=ssl.DER_cert_to_PEM_cert(der).encode())
    server, client = Heard(), Heard()
    ours, theirs = Below(), Below()
    theirs.handler = TlsServer(strange).begin(theirs, server.accept, server.fail)
    ours.handler = TlsClient().begin(ours, Pinned(fingerprint(own.key)), client.accept, client.fail)
    move(ours, theirs)
    await turns()
    assert str(assert_failed(client)) == "the server's certificate cannot be read"
    assert server.events == []
    ours, client = Below(), Heard()
    theirs.handler = TlsServer(strange).begin(theirs, server.accept, server.fail)
    ours.handler = TlsClient().begin(ours, Authorities("localhost"), client.accept, client.fail)
    move(ours, theirs)
    await turns()
    failure = assert_failed(client)
    assert isinstance(failure, ServerUntrusted)
    assert failure.fingerprint == ""


async def test_no_keys_are_logged_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    server, client = Heard(), Heard()
    move(*joined("tls", server, client))
    assert server.events == client.events == ["secure"]
    assert not log.exists()


# --- certificates and files -------------------------------------------------------------------------------------


def test_the_key_lies_in_a_temporary_file_of_our_own_for_a_moment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    modes: list[int] = []
    load = ssl.SSLContext.load_cert_chain

    def spy(made: ssl.SSLContext, path: str) -> None:
        modes.append(stat.S_IMODE(Path(path).stat().st_mode))
        load(made, path)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    TlsServer(a_certificate())
    assert modes == [0o600]
    assert list(tmp_path.iterdir()) == []


def test_where_there_is_no_temporary_file_there_is_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(CertificateFailed, match=r"needs a temporary file \(no such file or directory\)$"):
        TlsServer(a_certificate())


def test_a_certificate_that_openssl_does_not_take_is_refused_without_a_word_of_the_key() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(CertificateFailed, match=r"^the certificate cannot be used \(key values mismatch\)$"):
        TlsServer(replace(a_certificate(), private_key=pem))
    with pytest.raises(CertificateFailed, match=r"^the certificate cannot be used"):
        TlsServer(Certificate(b"", b"5ec2e7", b"5ec2e7"))


def test_authorities_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "authorities.crt"
    with pytest.raises(CertificateFailed, match=r"authorities\.crt: cannot be read \(no such file or directory\)$"):
        TlsClient(authorities=path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CertificateFailed, match=r"authorities\.crt: holds no certificates in PEM") as caught:
        TlsClient(authorities=path)
    assert caught.value.path == str(path)


# --- records ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, RECORD_SIZE_MAX, RECORD_SIZE_MAX + 1, 300_000])
async def test_what_is_written_at_once_goes_below_at_once_in_records(size: int) -> None:
    server, client = Heard(), Heard()
    ours, theirs = joined("tls", server, client)
    move(ours, theirs)
    data = (bytes(range(251)) * 1200)[:size]
    client.stream.write(data)
    records = -(-size // RECORD_SIZE_MAX)
    assert len(ours.sent) == size + 22 * records
    move(ours, theirs)
    assert server.data == data


async def test_openssl_is_given_little_at_a_time() -> None:
    server, client = Heard(), Heard()
    ours, theirs = joined("tls", server, client)
    move(ours, theirs)
    client.stream.write(bytes(1_000_000))
    server.on_data = server.stream.pause_reading
    theirs.handler.data_received(ours.take())
    assert isinstance(server.stream, SecureEnd)
    channel = server.stream._channel
    assert isinstance(channel, _TlsChannel)
    assert channel._incoming.pending <= RECORD_SIZE_MAX
    assert len(server.data) <= RECORD_SIZE_MAX


class Forger:
    """Another client that seals records of its own, by the keys that its library logs (RFC 8446 sections 5.2, 7)."""

    def __init__(self, folder: Path) -> None:
        made = context(server_side=False)
        made.keylog_filename = str(folder / "keys")
        self.raw, self.server, self.below, self.handler = against_server(made)
        assert self.server.events == ["secure"]
        (line,) = [line for line in (folder / "keys").read_text().splitlines() if "CLIENT_TRAFFIC_SECRET_0" in line]
        assert self.raw.tls.cipher() == ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)
        self._use(bytes.fromhex(line.split()[2]))

    def seal(self, message: bytes, kind: int = 22) -> bytes:
        content = message + bytes((kind,))
        head = b"\x17\x03\x03" + struct.pack(">H", len(content) + 16)
        nonce = (self._iv ^ self._number).to_bytes(12, "big")
        self._number += 1
        return head + self._cipher.encrypt(nonce, content, head)

    def key_update(self) -> bytes:
        sealed = self.seal(KEY_UPDATE)
        self._use(self._expand("traffic upd", 48))
        return sealed

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher = AESGCM(self._expand("key", 32))
        self._iv = int.from_bytes(self._expand("iv", 12), "big")
        self._number = 0

    def _expand(self, label: str, size: int) -> bytes:
        name = b"tls13 " + label.encode()
        info = struct.pack(">HB", size, len(name)) + name + b"\0"
        return HKDFExpand(SHA384(), size, info).derive(self._secret)


async def test_new_keys_are_taken_and_given_when_asked_for(tmp_path: Path) -> None:
    forger = Forger(tmp_path)
    forger.handler.data_received(forger.seal(b"one", 23) + forger.key_update() + forger.seal(b"two", 23))
    assert forger.server.data == b"onetwo"
    forger.server.stream.write(b"three")
    forger.raw.incoming.write(forger.below.take())
    assert forger.raw.tls.read() == b"three"


async def test_a_peer_that_asks_for_new_keys_without_end_and_reads_nothing_is_cut_off(tmp_path: Path) -> None:
    forger = Forger(tmp_path)
    forger.handler.pause_writing()
    asked = 0
    while not forger.below.ended:
        forger.handler.data_received(forger.key_update() + forger.seal(b"x", 23))
        asked += 1
        assert asked < 10_000
    assert forger.below.ended == "aborted"
    assert len(forger.below.sent) <= REPLIES_SIZE_MAX
    forger.handler.connection_lost(None)
    assert_broken(forger.server)
    assert "asks for answers" in str(forger.server.events[-1])


async def test_a_peer_that_asks_for_new_keys_now_and_then_may_do_so_for_ever(tmp_path: Path) -> None:
    forger = Forger(tmp_path)
    for _ in range(3 * REPLIES_SIZE_MAX // 27):
        forger.handler.pause_writing()
        forger.handler.data_received(forger.key_update())
        forger.handler.resume_writing()
    forger.handler.data_received(forger.seal(b"fine", 23))
    assert forger.server.data == b"fine"
    assert not forger.below.ended


@pytest.mark.parametrize("end", ["write", "write_eof", "close"])
async def test_half_a_handshake_message_stops_us_without_raising(tmp_path: Path, end: str) -> None:
    forger = Forger(tmp_path)
    forger.handler.data_received(forger.seal(KEY_UPDATE[:4]))
    arguments = [b"data"] if end == "write" else []
    getattr(forger.server.stream, end)(*arguments)
    assert forger.below.ended == "aborted"
    forger.server.stream.write(b"too late")
    forger.handler.connection_lost(None)
    assert isinstance(forger.server.events[-1], TransportClosed)


@pytest.mark.parametrize(("message", "kind"), [(b"\x01\x00\x00\x00", 22), (b"", 23), (b"\2\50", 21), (b"?", 99)])
async def test_messages_that_have_no_place_behind_a_handshake_break_the_stream(
    tmp_path: Path, message: bytes, kind: int
) -> None:
    forger = Forger(tmp_path)
    for _ in range(40):
        forger.handler.data_received(forger.seal(message, kind))
    assert forger.below.ended == "aborted"
    forger.handler.connection_lost(None)
    assert_broken(forger.server)
    assert not isinstance(forger.server.events[-1], HandshakeFailed)
