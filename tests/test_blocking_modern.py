"""``ocm.blocking`` in rooms of TCRP/2, and that it has whatever ``ocm`` has."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ocm
from ocm import blocking
from tests.security import a_certificate

LOOPBACK = "tcrps://127.0.0.1:0"
AIKO, BEN = ocm.Person("aiko"), ocm.Person("ben")
WAIT_S = 20.0
"""Longer than anything here takes."""


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def receive(room: blocking.Room) -> ocm.Event | None:
    """Return the next event that does not tell of a path."""
    while isinstance(event := room.receive(WAIT_S), ocm.PathChanged):
        pass
    return event


def test_two_people_talk_and_one_comes_late() -> None:
    policy = ocm.Policy(ocm.Access.MIXED)
    with (
        blocking.serve(LOOPBACK, certificate=a_certificate(), classic="loopback") as server,
        blocking.connect(server.url, user="aiko") as aiko,
        blocking.connect(server.url, user="ben") as ben,
        aiko.create("部屋", policy=policy) as hosted,
    ):
        assert server.fingerprint is not None
        assert server.url.endswith(server.fingerprint)
        assert server.classic_url == f"tcrp://127.0.0.1:{server.tcp_port}?udp={server.udp_port}"
        assert (hosted.encrypted, hosted.policy, hosted.plaintext_members, hosted.form) == (True, policy, 0, None)
        assert hosted.send("hello") == ocm.Receipt(1, "hello", ocm.Delivery.IN_ROOM, 2)
        with ben.join("部屋") as room:
            [message] = room.history(10)
            assert (message.sender, message.text, message.history) == (AIKO, "hello", True)
            assert room.history(10, before=2) == ()
            assert receive(hosted) == ocm.Receipt(1, "hello", ocm.Delivery.IN_ROOM, 2)
            assert receive(hosted) == ocm.MemberJoined(BEN)
            with pytest.raises(ocm.RoomRefused):
                room.close()
            hosted.require_encryption()
            assert receive(room) == ocm.PolicyChanged(ocm.Access.MODERN)
            assert room.policy == ocm.Policy()
            while room.path.kind is not ocm.PathKind.UDP:
                room.history(1)
            hosted.kick("ben")
            assert receive(room) == ocm.Removed(ocm.Reason.KICKED)
            assert room.receive(WAIT_S) is None
        hosted.close()
        assert list(hosted)[-1] == ocm.RoomClosed(ocm.Reason.ENDED)


def test_server_and_client_remember(tmp_path: Path) -> None:
    state = tmp_path / "ben.db"
    for run in (1, 2):
        with (
            blocking.serve(LOOPBACK, data_dir=tmp_path) as server,
            blocking.connect(server.url, user="aiko", state=tmp_path / "aiko.db") as client,
            pytest.raises(ocm.StateLocked),
            blocking.connect(server.url, user="aiko", state=tmp_path / "aiko.db"),
        ):
            raise AssertionError(run)
        with (
            blocking.serve(LOOPBACK, data_dir=tmp_path, udp_port=0) as server,
            server.create(f"run {run}", "host", policy=ocm.Policy(lifetime=ocm.Lifetime.PERSIST)) as host,
            blocking.connect(server.url, user="ben", state=state) as client,
            client.join(f"run {run}") as room,
        ):
            room.send("hello", timeout_s=WAIT_S)
            assert host.receive(WAIT_S) == ocm.MemberJoined(BEN)
            with client.create("kept" if run == 1 else "other", policy=ocm.Policy(lifetime=ocm.Lifetime.PERSIST)):
                pass
            if run == 2:
                with client.join("kept") as kept:
                    assert kept.members() == ("ben",)


def test_a_server_that_is_not_the_one_is_refused() -> None:
    with (
        blocking.serve(LOOPBACK, certificate=a_certificate()) as server,
        blocking.connect(server.url.partition("#")[0] + "#fp=" + "ab" * 32, user="aiko") as client,
        pytest.raises(ocm.ServerUntrusted) as refused,
        client.join("r"),
    ):
        raise AssertionError
    assert refused.value.fingerprint == server.fingerprint


@pytest.mark.parametrize("name", ["Room", "Client", "EmbeddedServer", "LocalMember"])
def test_whatever_can_be_asked_of_ocm_can_be_asked_of_it(name: str) -> None:
    one: Any = getattr(ocm, name)
    other: Any = getattr(blocking, name)
    public = [member for member in names_of(one) if not member.startswith("_") and member != "enter"]
    for member in public:
        assert hasattr(other, member) or member in {"name", "user"}, member
        if inspect.isfunction(getattr(one, member)):
            assert set(parameters(getattr(one, member))) <= set(parameters(getattr(other, member))), member


@pytest.mark.parametrize("name", ["serve", "connect"])
def test_what_it_is_called_with_is_what_ocm_is_called_with(name: str) -> None:
    assert parameters(getattr(blocking, name)) == parameters(getattr(ocm, name))


def parameters(function: Any) -> dict[str, Any]:
    return {one.name: one.default for one in inspect.signature(function).parameters.values()}


def names_of(cls: type) -> list[str]:
    return list(vars(cls))
