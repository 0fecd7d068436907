"""The vectors of TCRP/2, which any implementation can check, are what our code gives and takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ocm.errors import RemoteProtocolError
from ocm.protocol.session.keys import Direction, SessionSecrets, session_secrets
from ocm.protocol.session.seal import Opener
from ocm.protocol.wire.frames import read_frames
from ocm.protocol.wire.records import Greeting, Hello, RecordReader
from ocm.protocol.wire.sealed import read_sealed
from tools import write_vectors

VECTORS: dict[str, Any] = json.loads(write_vectors.VECTORS.read_text(encoding="utf-8"))


def secrets() -> SessionSecrets:
    """Derive from what the two records say, as the two sides of a session do."""
    reader = RecordReader()
    hello, answer = bytes.fromhex(VECTORS["session"]["hello"]), bytes.fromhex(VECTORS["session"]["answer"])
    reader.feed(hello + answer)
    said = [record.read() for record in (reader.next(), reader.next()) if record is not None]
    assert isinstance(said[0], Hello)
    assert isinstance(said[1], Greeting)
    return session_secrets(
        hello=hello,
        answer=answer,
        server_key=bytes.fromhex(VECTORS["session"]["server_key"]),
        client_secret=bytes.fromhex(said[0].secret),
        server_secret=bytes.fromhex(said[1].secret),
    )


def test_the_file_is_what_our_code_gives() -> None:
    assert write_vectors.VECTORS.read_text(encoding="utf-8") == write_vectors.rendered()


@pytest.mark.parametrize("direction", Direction)
def test_what_is_in_the_file_opens_in_its_order_and_once(direction: Direction) -> None:
    first = secrets().to_server if direction is Direction.TO_SERVER else secrets().to_client
    vectors = VECTORS["directions"][direction.value]
    assert first.hex() == vectors["epochs"][0]["secret"]
    opener = Opener(first)
    for packet in vectors["packets"]:
        datagram = read_sealed(bytes.fromhex(packet["datagram"]))
        assert datagram is not None
        assert datagram.connection_id.hex() == vectors["connection"]
        assert str(datagram.packet_number) == packet["number"]
        opened = opener.open(datagram)
        assert opened is not None
        assert opened.hex() == packet["frames"]
        assert opener.open(datagram) is None


def test_what_the_file_says_is_refused_is_refused() -> None:
    for one in VECTORS["refused"]:
        with pytest.raises(RemoteProtocolError):
            read_frames(bytes.fromhex(one["bytes"]))


def test_a_vector_that_should_be_refused_and_is_not_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_vectors, "_REFUSED", {"a ping": b"\x01"})
    with pytest.raises(ValueError, match="a ping"):
        write_vectors.frames_refused()
