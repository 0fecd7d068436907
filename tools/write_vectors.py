"""Write tests/vectors/sealed.json: what an implementation of TCRP/2 has to compute, with every step between.

``python tools/write_vectors.py`` makes the file from our own code; a test says that it is still the same, and another
that a second implementation, written from docs/tcrp2.md, agrees. Binary values are lowercase hex; integers that may
be above 2^53 are strings of decimal digits.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ocm.errors import RemoteProtocolError  # noqa: E402
from ocm.protocol.session import keys  # noqa: E402
from ocm.protocol.session.window import ReplayWindow  # noqa: E402
from ocm.protocol.wire import frames, records  # noqa: E402
from ocm.protocol.wire.classic import Stage  # noqa: E402
from ocm.protocol.wire.sealed import FRAMES_SIZE_MAX, PACKET_NUMBER_MAX, write_header  # noqa: E402

VECTORS: Final = ROOT / "tests" / "vectors" / "sealed.json"
Json: TypeAlias = dict[str, Any]

_CLIENT_SECRET: Final = bytes(range(32))
_SERVER_SECRET: Final = bytes(range(255, 223, -1))
_CLIENT_CONNECTION: Final = b"to-aiko."
_SERVER_CONNECTION: Final = b"to-serve"
_PRIVATE_KEY: Final = int.from_bytes(b"a key of no server in this world", "big")
_GIVEN_SECRET: Final = b"a secret of some epoch far away!"
_EPOCHS: Final = 3
_EPOCH: Final = 1 << keys.EPOCH_BITS


# --- a session --------------------------------------------------------------------------------------------------


def session() -> Json:
    """Return the two HELLO records, what else goes into the keys, and what comes out."""
    server_key = (
        ec.derive_private_key(_PRIVATE_KEY, ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    hello = records.Hello(
        versions=[records.VERSION],
        suites=[records.SUITE],
        secret=_CLIENT_SECRET.hex(),
        connection=_CLIENT_CONNECTION.hex(),
    )
    greeting = records.Greeting(
        version=records.VERSION,
        suite=records.SUITE,
        secret=_SERVER_SECRET.hex(),
        durability="disk",
        burst=200,
        rate=50.0,
        body_max=frames.BODY_SIZE_MAX,
    )
    asked = records.write_record(records.Op.HELLO, Stage.REQUEST, hello)
    answered = records.write_record(records.Op.HELLO, Stage.STATUS, greeting)
    said = keys.transcript_hash(hello=asked, answer=answered, server_key=server_key)
    return {
        "hello": asked.hex(),
        "answer": answered.hex(),
        "server_key": server_key.hex(),
        "client_secret": _CLIENT_SECRET.hex(),
        "server_secret": _SERVER_SECRET.hex(),
        "th": said.hex(),
        "prk": keys.extract(said, _CLIENT_SECRET, _SERVER_SECRET).hex(),
    }


def directions(made: Json) -> Json:
    """Return secrets, keys and sealed datagrams of both directions of a session."""
    secrets = keys.session_secrets(
        hello=bytes.fromhex(made["hello"]),
        answer=bytes.fromhex(made["answer"]),
        server_key=bytes.fromhex(made["server_key"]),
        client_secret=_CLIENT_SECRET,
        server_secret=_SERVER_SECRET,
    )
    return {
        keys.Direction.TO_SERVER.value: _direction(secrets.to_server, _SERVER_CONNECTION, _PACKETS_TO_SERVER),
        keys.Direction.TO_CLIENT.value: _direction(secrets.to_client, _CLIENT_CONNECTION, _PACKETS_TO_CLIENT),
    }


def _direction(first: bytes, connection: bytes, packets: Mapping[int, Sequence[frames.Frame]]) -> Json:
    secrets = [first]
    while len(secrets) < _EPOCHS:
        secrets.append(keys.next_secret(secrets[-1]))
    return {
        "connection": connection.hex(),
        "epochs": [_epoch(number, secret) for number, secret in enumerate(secrets)],
        "packets": [
            _packet(secrets[keys.epoch_of(number)], connection, number, said) for number, said in packets.items()
        ],
    }


def _epoch(number: int, secret: bytes) -> Json:
    return {
        "epoch": number,
        "secret": secret.hex(),
        "key": keys.key_of(secret).hex(),
        "iv": keys.iv_of(secret).hex(),
    }


def _packet(secret: bytes, connection: bytes, number: int, said: Sequence[frames.Frame]) -> Json:
    header, content = write_header(connection, number), frames.write_frames(said)
    return {
        "number": str(number),
        "epoch": keys.epoch_of(number),
        "nonce": (int.from_bytes(keys.iv_of(secret), "big") ^ number).to_bytes(keys.IV_SIZE, "big").hex(),
        "header": header.hex(),
        "frames": content.hex(),
        "datagram": (header + keys.EpochKey(secret).seal(number, content, header)).hex(),
    }


def given() -> Json:
    """Return packets under a secret that is given, up to the last number there is: too many epochs to count to."""
    numbers = (PACKET_NUMBER_MAX, PACKET_NUMBER_MAX - _EPOCH + 1)
    packets = [_packet(_GIVEN_SECRET, _SERVER_CONNECTION, number, [frames.Ping()]) for number in numbers]
    return {**_epoch(keys.epoch_of(PACKET_NUMBER_MAX), _GIVEN_SECRET), "packets": packets}


def _padded(*said: frames.Frame) -> list[frames.Frame]:
    """Fill a datagram to its last byte, as a probe of the path does."""
    return [*said, frames.Padding(FRAMES_SIZE_MAX - len(frames.write_frames(said)))]


_HELLO: Final = "Hello, 世界".encode()
_PACKETS_TO_SERVER: Final[Mapping[int, Sequence[frames.Frame]]] = {
    0: _padded(frames.Ping(), frames.Challenge(b"whoareu?")),
    1: [frames.Publish(1, 1, 0, _HELLO)],
    63: [frames.Ack(62, 0), frames.Received(1, 7, 256), frames.Publish(1, 2, 0, b"again")],
    65_536: [frames.Ping()],
    _EPOCH - 1: [frames.Ack(70, 12, b"\xff\x01")],
    _EPOCH: [frames.Ping()],
    _EPOCH + 5: [frames.Received(2, 2**63, 0)],
    2 * _EPOCH: [frames.Close(0, b"")],
    3 * _EPOCH - 1: [frames.Ping()],
}
_PACKETS_TO_CLIENT: Final[Mapping[int, Sequence[frames.Frame]]] = {
    0: _padded(frames.Response(b"whoareu?"), frames.Ping(), frames.Challenge(b"and you?"), frames.Ack(0, 3)),
    1: [
        frames.Published(1, 1, 0, 8, 1_700_000_000_123),
        frames.Message(1, 8, 3, 1, 1_700_000_000_123, 0, 0, _HELLO),
    ],
    _EPOCH - 1: [frames.Head(1, 8, 1)],
    _EPOCH: [frames.Gap(1, 9, 12, 1)],
    2 * _EPOCH + 1: [frames.Close(1, b"the server is stopping")],
}


# --- frames -----------------------------------------------------------------------------------------------------

_READ: Final[Sequence[Sequence[frames.Frame]]] = (
    [frames.Ping()],
    [frames.Pong()],
    [frames.Padding(1)],
    [frames.Ping(), frames.Padding(3)],
    [frames.Ack(0, 0)],
    [frames.Ack(10, 250, b"\x05")],
    [frames.Ack(PACKET_NUMBER_MAX, 65_535, b"\x00\x00\x80")],
    [frames.Ack(128, 1, bytes(15) + b"\x80")],
    [frames.Publish(1, 2**53 - 1, 0, b"")],
    [frames.Publish(2**32 - 1, 1, 255, _HELLO)],
    [frames.Published(1, 1, 1, 0, 1500)],
    [frames.Message(1, 2**64 - 1, 2**32 - 1, 0, 2**64 - 1, 1, 3, b'{"member":3,"name":"aiko","flags":0}')],
    [frames.Received(1, 2**64 - 1, 65_535)],
    [frames.Gap(1, 5, 5, 3)],
    [frames.Head(1, 0, 1)],
    [frames.Challenge(bytes(8)), frames.Response(b"\xff" * 8)],
    [frames.Close(65_535, "終".encode())],
    [frames.Signal(1, 0, 7, 2**64 - 1, b"\x01\x02")],
    [frames.Ping()] * frames.FRAMES_MAX,
)
_REFUSED: Final[Mapping[str, bytes]] = {
    "an unknown type": b"\x07",
    "an unknown type behind a known one": b"\x01\x10",
    "padding with a one in it": b"\x00\x00\x01",
    "a frame that ends before its fields": b"\x06\x00\x00\x00\x01",
    "a body that is shorter than its size": frames.write_frame(frames.Publish(1, 1, 0, b"four"))[:-1],
    "an ACK with a last byte of zero": bytes.fromhex("02 00000000000a 0000 01 00"),
    "an ACK with 17 bytes of bitmap": bytes.fromhex("02 0000000003e8 0000 11") + b"\x01" * 17,
    "an ACK of a number below 0": bytes.fromhex("02 000000000003 0000 01 08"),
    "a message id of 2^53": bytes.fromhex("03 00000001 0020000000000000 00 0000"),
    "a gap that ends before it begins": bytes.fromhex("08 00000001 0000000000000002 0000000000000001 01"),
    "65 frames": b"\x01" * 65,
}


def frames_read() -> list[Json]:
    """Return frames with what they say."""
    return [{"bytes": frames.write_frames(said).hex(), "frames": [_shown(one) for one in said]} for said in _READ]


def frames_refused() -> list[Json]:
    """Return bytes that are not frames, and why. Raises ``ValueError`` for those that are."""
    for why, data in _REFUSED.items():
        try:
            frames.read_frames(data)
        except RemoteProtocolError:
            continue
        raise ValueError(f"not refused: {why}")
    return [{"bytes": data.hex(), "why": why} for why, data in _REFUSED.items()]


_TITLES: Final = {kind.view: kind.layout.title for kind in frames.FRAME_TYPES}


def _shown(frame: frames.Frame) -> Json:
    if isinstance(frame, frames.Padding):
        return {"type": "PADDING", "size": str(frame.size)}
    said: Json = {"type": _TITLES[type(frame)]}
    values: Iterable[tuple[str, int | bytes]] = zip(frame._fields, frame, strict=True)
    for name, value in values:
        said[name] = value.hex() if isinstance(value, bytes) else str(value)
    if isinstance(frame, frames.Ack):
        bits = int.from_bytes(frame.bitmap, "little")
        earlier = [frame.largest - 1 - place for place in range(bits.bit_length()) if bits >> place & 1]
        said["acknowledges"] = [str(number) for number in (frame.largest, *earlier)]
    return said


# --- the replay window ------------------------------------------------------------------------------------------

_ARRIVING: Final = (0, 0, 2, 1, 1, 1025, 2, 1, 3, 3, 1026, 2, 3, 4, 5000, 3976, 3977, 3977, PACKET_NUMBER_MAX, 5)


def replay() -> list[Json]:
    """Return packet numbers in the order of their coming, and whether each is new."""
    window = ReplayWindow()
    seen: list[Json] = []
    for number in _ARRIVING:
        admitted = window.admits(number)
        if admitted:
            window.mark(number)
        seen.append({"number": str(number), "admitted": admitted})
    return seen


# --- all --------------------------------------------------------------------------------------------------------


def vectors() -> Json:
    """Return everything."""
    made = session()
    return {
        "session": made,
        "directions": directions(made),
        "given": given(),
        "frames": frames_read(),
        "refused": frames_refused(),
        "replay": replay(),
    }


def rendered() -> str:
    """Return the file."""
    return json.dumps(vectors(), indent=1, ensure_ascii=True) + "\n"


def main() -> None:
    """Write the file."""
    VECTORS.write_text(rendered(), encoding="utf-8")
    print(f"wrote {VECTORS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
