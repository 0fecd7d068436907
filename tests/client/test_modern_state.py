"""What a client of TCRP/2 remembers, over its own end and its server's."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, closing
from functools import partial
from pathlib import Path

import pytest

import ocm
from ocm import Delivery
from ocm.protocol.memory import Memo
from ocm.store.base import Stored
from ocm.store.client_memory import MemoryState
from ocm.store.client_sqlite import SqliteState
from ocm.store.memory import MemoryJournal
from ocm.testing import Network
from tests.client.stage import rest
from tests.modern import BEN, URL, Listener, now_s, simulated, sitting, until
from tests.store.faults import Disk, disk_error

SERVER_URL = "tcrps://server:4000"


def copy_database(path: Path, copy: Path) -> None:
    """Copy a database that is in use, as a backup does."""
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


@simulated
async def test_a_client_that_comes_back_is_the_same_member_and_reads_on(network: Network, tmp_path: Path) -> None:
    state = tmp_path / "ben.db"
    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True) as hosted:
        aikos = Listener(hosted)
        async with ocm.connect(server.url, user="ben", state=state) as client:
            room = await client.join("r").__aenter__()  # and does not leave
            await hosted.send("while ben is here")
            bens = Listener(room)
            await until(lambda: bens.texts == ["while ben is here"])
        await hosted.send("while ben is away")
        async with ocm.connect(server.url, user="ben", state=state) as client, client.join("r") as room:
            bens = Listener(room)
            await room.send("back")
            await until(lambda: bens.texts == ["while ben is away"])
        await until(lambda: ocm.MemberLeft(BEN, ocm.Reason.BYE) in aikos.events)
        assert aikos.events.count(ocm.MemberJoined(BEN)) == 1
        assert aikos.texts == ["back"]


@simulated
async def test_a_name_stays_with_who_remembers_it(network: Network, tmp_path: Path) -> None:
    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True):
        async with ocm.connect(server.url, user="ben", state=tmp_path / "ben.db") as client:
            await client.join("r").__aenter__()
        with pytest.raises(ocm.RoomRefused) as refused:
            async with sitting(server.url, "ben"):
                pass
        assert refused.value.code == ocm.Refusal.NAME_TAKEN
        async with sitting(server.url, "ben", state=tmp_path / "ben.db"):
            pass
        async with sitting(server.url, "ben"):  # now that it was left
            pass


@simulated
async def test_what_was_left_was_forgotten(network: Network, tmp_path: Path) -> None:
    state = tmp_path / "aiko.db"
    async with ocm.serve(URL) as server:
        for _ in range(2):
            async with sitting(server.url, "aiko", create=True, state=state) as room:
                assert (await room.send("hello")).seq == 2


@simulated
async def test_what_could_not_be_said_is_said_by_the_next_run_exactly_once(network: Network, tmp_path: Path) -> None:
    state = tmp_path / "ben.db"
    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True) as hosted:
        aikos = Listener(hosted)
        async with ocm.connect(server.url, user="ben", state=state) as client:
            room = await client.join("r").__aenter__()
            await room.send("1")
            network.cut("ben", direction="down")
            room.post("2")  # it arrives; that it did is not heard
            await asyncio.sleep(1)
            network.cut("ben")
            room.post("3")  # it does not
        network.heal("ben")
        async with ocm.connect(server.url, user="ben", state=state) as client, client.join("r") as room:
            bens = Listener(room)
            room.post("4")
            await room.drain()
            await until(lambda: len(bens.receipts) == 3)
            assert [(one.text, one.delivery) for one in bens.receipts] == [
                (text, Delivery.IN_ROOM) for text in ("2", "3", "4")
            ]
        await until(lambda: aikos.texts == ["1", "2", "3", "4"])


class SlowState(MemoryState):
    """Takes a second for each batch."""

    def submit(self, memos: Sequence[Memo], stored: Stored) -> None:
        asyncio.get_running_loop().call_later(1.0, super().submit, memos, stored)


@simulated
async def test_who_has_left_does_not_remember_the_room(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    state = SlowState()
    monkeypatch.setattr("ocm.api.MemoryState", lambda: state)
    async with ocm.serve(URL) as server, ocm.connect(server.url, user="aiko") as client:
        room = await client.create("r").__aenter__()
        await room.send("hello")
        assert "r" in state.load().rooms
        await room.leave()
        assert state.load().rooms == {}


@simulated
async def test_who_cannot_have_it_remembered_leaves_all_the_same(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch, at="DELETE FROM room")
    async with (
        ocm.serve(URL) as server,
        ocm.connect(server.url, user="aiko", state=tmp_path / "aiko.db") as client,
    ):
        room = await client.create("r").__aenter__()
        disk.is_full = True
        start_s = now_s()
        await room.leave()
        assert now_s() - start_s < 1
        disk.is_full = False


@simulated
async def test_a_state_belongs_to_one_client_at_a_time(network: Network, tmp_path: Path) -> None:
    state = tmp_path / "aiko.db"
    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True, state=state) as room:
        with pytest.raises(ocm.StateLocked, match="another process is using it"):
            async with ocm.connect(server.url, user="aiko", state=state):
                pass
        assert (await room.send("hello")).delivery is Delivery.IN_ROOM
    async with ocm.connect(URL.replace(":0", ":1"), user="aiko", state=state):
        pass


@simulated
async def test_a_state_that_is_none_is_refused_before_anything_is_sent(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "aiko.db"
    path.write_bytes(b"not a database, but a diary of sixteen bytes or more")
    with pytest.raises(ocm.StateFailed):
        async with ocm.connect(SERVER_URL, user="aiko", state=path):
            pass
    with pytest.raises(ocm.LocalProtocolError, match="no state"):
        async with ocm.connect("tcrp://server", user="aiko", state=path):
            pass
    assert not len(network.timeline)


@simulated
async def test_two_programs_with_copies_of_one_state_the_later_one_goes_on(network: Network, tmp_path: Path) -> None:
    state, copy = tmp_path / "ben.db", tmp_path / "copy.db"
    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True) as hosted:
        aikos = Listener(hosted)
        async with ocm.connect(server.url, user="ben", state=state) as first:
            room = await first.join("r").__aenter__()
            await room.send("first")
            copy_database(state, copy)
            async with ocm.connect(server.url, user="ben", state=copy) as second, second.join("r") as other:
                await other.send("second")
                with pytest.raises(ocm.TransportClosed, match="another program"):
                    await rest(room)
                with pytest.raises(ocm.SendRefused):
                    room.post("still here?")
                with pytest.raises(ocm.TransportClosed, match="another program"):
                    async with first.join("other"):
                        pass
                await asyncio.sleep(100)  # nobody takes the seat back
                await other.send("third")
        await until(lambda: aikos.texts == ["first", "second", "third"])


@simulated
async def test_a_durable_server_comes_back_with_rooms_members_and_history(network: Network, tmp_path: Path) -> None:
    where = "tcrps://[::]:4000"
    async with AsyncExitStack() as stack:
        async with ocm.serve(where, data_dir=tmp_path / "server") as server:
            url = server.url
            hosted = await stack.enter_async_context(sitting(url, "aiko", create=True))
            room = await stack.enter_async_context(sitting(url, "ben"))
            aikos, bens = Listener(hosted), Listener(room)
            await hosted.send("before")
            await until(lambda: bens.texts == ["before"])
        hosted.post("while it was away")
        await asyncio.sleep(20)
        assert room.connection is ocm.Connection.RECONNECTING
        async with ocm.serve(where, data_dir=tmp_path / "server") as server:
            assert server.url == url
            await until(lambda: bens.texts == ["before", "while it was away"])
            assert (await room.send("welcome back")).delivery is Delivery.IN_ROOM
            await until(lambda: aikos.texts == ["welcome back"])
            assert [message.text for message in await room.history()] == ["before", "while it was away", "welcome back"]
            assert await room.fetch_members() == ("aiko", "ben")
            assert await until(lambda: room.path.kind is ocm.PathKind.UDP) >= 0
        assert not [one for one in (*aikos.events, *bens.events) if isinstance(one, ocm.LogChanged | ocm.Gap)]


@simulated
async def test_who_was_removed_and_could_not_hear_so_before_the_server_went_hears_it_from_the_next(
    network: Network, tmp_path: Path
) -> None:
    where = "tcrps://[::]:4000"
    async with AsyncExitStack() as stack:
        async with ocm.serve(where, data_dir=tmp_path) as server:
            hosted = await stack.enter_async_context(sitting(server.url, "aiko", create=True))
            room = await stack.enter_async_context(sitting(server.url, "ben"))
            network.cut("ben")
            await hosted.kick("ben")
        network.heal("ben")
        async with ocm.serve(where, data_dir=tmp_path):
            assert (await rest(room))[-1] == ocm.Removed(ocm.Reason.KICKED)
            await until(lambda: hosted.connection is ocm.Connection.CONNECTED)
            assert await hosted.fetch_members() == ("aiko",)


@simulated
async def test_members_are_told_that_a_server_stops_for_good(network: Network) -> None:
    async with AsyncExitStack() as stack:
        async with ocm.serve(URL) as server:
            rooms = [
                await stack.enter_async_context(sitting(server.url, user, create=user == "aiko"))
                for user in ("aiko", "ben")
            ]
            start_s = now_s()
        assert now_s() - start_s < 1
        for room in rooms:
            assert (await rest(room))[-1] == ocm.RoomClosed(ocm.Reason.SERVER_STOPPED)


@simulated
async def test_a_server_with_another_key_is_not_the_one_that_was_lost(network: Network) -> None:
    where = "tcrps://[::]:4000"
    network.cut("ben")
    network.heal("ben")
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(AsyncExitStack())
        server = await running.enter_async_context(ocm.serve(where))
        room = await stack.enter_async_context(sitting(server.url, "ben", create=True))
        await room.send("hello")
        network.cut("ben")  # so that it does not hear of the end
        await running.aclose()
        network.heal("ben")
        async with ocm.serve(where) as another:
            assert another.url != server.url
            with pytest.raises(ocm.ServerUntrusted) as refused:
                await rest(room)
            assert refused.value.fingerprint == another.fingerprint
            with pytest.raises(ocm.SendRefused, match="closed"):
                room.post("is that you?")


@simulated
async def test_the_resume_secret_is_shown_to_the_server_it_came_from_alone(network: Network, tmp_path: Path) -> None:
    state = tmp_path / "ben.db"
    async with ocm.serve(URL, data_dir=tmp_path / "one") as server, sitting(server.url, "aiko", create=True):
        async with ocm.connect(server.url, user="ben", state=state) as client:
            await client.join("r").__aenter__()
        with network.on("elsewhere"):
            async with (
                ocm.serve(URL) as another,
                sitting(another.url, "aiko", create=True),
                sitting(another.url, "ben", state=state) as room,
            ):
                assert await room.fetch_members() == ("aiko", "ben")
                assert (await room.send("hello")).seq == 3


class FullDisk:
    """A disk on which nothing of a kind can be written, as long as it is full."""

    def __init__(self, patch: pytest.MonkeyPatch, *, at: str) -> None:
        self.is_full = False
        disk = Disk(lambda statement: self.is_full and at in statement, error=lambda: disk_error(sqlite3.SQLITE_FULL))
        patch.setattr("ocm.api.SqliteState", partial(SqliteState, connect=disk.connect))


@simulated
async def test_a_client_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, state = FullDisk(monkeypatch, at="INTO posted"), tmp_path / "ben.db"
    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True) as hosted:
        aikos = Listener(hosted)
        async with sitting(server.url, "ben", state=state) as room:
            bens = Listener(room)
            await room.send("kept")
            disk.is_full = True
            waiting = asyncio.create_task(room.send("waits"))
            await until(lambda: any(isinstance(event, ocm.StateChanged) for event in bens.events))
            for _ in range(3):
                with pytest.raises(ocm.StateFailed, match="full"):
                    room.post("not taken")
                with pytest.raises(ocm.StateFailed, match="full"):
                    await room.send("not taken")
                await hosted.send("heard")
                await asyncio.sleep(10)
            assert aikos.texts == ["kept"]
            assert bens.texts == ["heard"] * 3
            disk.is_full = False
            assert (await waiting).delivery is Delivery.IN_ROOM
            await room.send("after")
            await until(lambda: ocm.StateChanged(None) in bens.events)
            told = [event.failure for event in bens.events if isinstance(event, ocm.StateChanged)]
            assert [failure is None for failure in told] == [False, True]
            assert "full" in (told[0] or "")
        assert aikos.texts == ["kept", "waits", "after"]
    assert SqliteState(state).load().rooms == {}


@simulated
async def test_a_client_whose_disk_is_full_is_who_it_was_after_a_crash(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it has come back meanwhile: what it shows the server is what it will find."""
    disk, state, crashed = FullDisk(monkeypatch, at="INTO named"), tmp_path / "ben.db", tmp_path / "crashed.db"
    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True) as hosted:
        aikos = Listener(hosted)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(ocm.connect(server.url, user="ben", state=state))
            room = await client.join("r").__aenter__()
            await room.send("before")
            disk.is_full = True
            for _ in range(3):
                network.cut("ben")
                await asyncio.sleep(30)
                network.heal("ben")
                await until(lambda: room.connection is ocm.Connection.CONNECTED)
                await asyncio.sleep(5)
            copy_database(state, crashed)
            network.cut("ben")
            disk.is_full = False
        network.heal("ben")
        async with sitting(server.url, "ben", state=crashed) as room:
            assert room.returned
            await room.send("behind")
        assert aikos.texts == ["before", "behind"]


@simulated
async def test_who_can_remember_nothing_is_not_let_in(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch, at="INTO")
    async with (
        ocm.serve(URL) as server,
        sitting(server.url, "aiko", create=True),
        ocm.connect(server.url, user="ben", state=tmp_path / "ben.db") as client,
    ):
        disk.is_full = True
        for _ in range(2):
            with pytest.raises(ocm.StateFailed, match="full"):
                async with client.join("r"):
                    await asyncio.sleep(10)
        disk.is_full = False
        await asyncio.sleep(10)
        async with client.join("r") as room:
            await room.send("here")


@simulated
async def test_who_ends_before_everything_is_remembered_is_told(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, state = FullDisk(monkeypatch, at="INTO posted"), tmp_path / "ben.db"

    async def say(text: str, *, full_at_the_end: bool) -> None:
        async with ocm.connect(server.url, user="ben", state=state) as client:
            disk.is_full = False
            room = await client.join("r").__aenter__()
            disk.is_full = True
            room.post(text)
            await asyncio.sleep(1)
            disk.is_full = full_at_the_end

    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True) as hosted:
        aikos = Listener(hosted)
        with pytest.raises(ocm.StateFailed, match="full"):
            await say("not kept", full_at_the_end=True)
        await say("kept", full_at_the_end=False)
        async with sitting(server.url, "ben", state=state):
            await until(lambda: aikos.texts == ["kept"])


@simulated
async def test_a_backup_from_before_the_last_run_is_another_client(network: Network, tmp_path: Path) -> None:
    state, backup = tmp_path / "ben.db", tmp_path / "backup.db"
    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True):
        async with ocm.connect(server.url, user="ben", state=state) as client:
            room = await client.join("r").__aenter__()
            await room.send("hello")
        copy_database(state, backup)
        async with ocm.connect(server.url, user="ben", state=state) as client:
            room = await client.join("r").__aenter__()
            await room.send("hello")
        with pytest.raises(ocm.RoomRefused) as refused:  # the secret it shows was used up
            async with sitting(server.url, "ben", state=backup):
                pass
        assert refused.value.code == ocm.Refusal.NAME_TAKEN


@simulated
async def test_a_room_that_closed_meanwhile_is_read_to_its_end(network: Network, tmp_path: Path) -> None:
    state = tmp_path / "ben.db"
    async with ocm.serve(URL) as server:
        async with sitting(server.url, "aiko", create=True) as hosted:
            async with ocm.connect(server.url, user="ben", state=state) as client:
                await client.join("r").__aenter__()
            await hosted.send("goodbye, ben")
        async with sitting(server.url, "ben", state=state) as room:
            bens = Listener(room)
            await bens.end()
            assert bens.texts == ["goodbye, ben"]
            assert bens.events[-1] == ocm.RoomClosed(ocm.Reason.HOST_LEFT)


@simulated
async def test_a_room_that_its_server_has_forgotten_is_refused(network: Network, tmp_path: Path) -> None:
    state = tmp_path / "ben.db"
    where = "tcrps://[::]:4000"

    def server_without_memory() -> AbstractAsyncContextManager[ocm.EmbeddedServer]:
        return ocm.serve(where, data_dir=tmp_path, journal=MemoryJournal(ocm.Limits()))  # the same key each time

    async with (
        server_without_memory() as server,
        sitting(server.url, "aiko", create=True),
        ocm.connect(server.url, user="ben", state=state) as client,
    ):
        await client.join("r").__aenter__()
    async with server_without_memory() as server:
        start_s = now_s()
        with pytest.raises(ocm.RoomRefused) as refused:
            async with sitting(server.url, "ben", state=state):
                pass
        assert refused.value.code == ocm.Refusal.NOT_FOUND
        assert now_s() - start_s < 20  # its host may be about to make it again
        async with sitting(server.url, "ben", create=True, state=state) as room:
            assert (await room.send("then I make it")).seq == 2


@simulated
async def test_a_room_that_is_made_anew_is_another_one_and_that_is_told(network: Network, tmp_path: Path) -> None:
    where = "tcrps://[::]:4000"
    async with AsyncExitStack() as stack:
        async with ocm.serve(where, data_dir=tmp_path, journal=MemoryJournal(ocm.Limits())) as server:
            hosted = await stack.enter_async_context(sitting(server.url, "aiko", create=True))
            room = await stack.enter_async_context(sitting(server.url, "ben"))
            await hosted.send("in the first")
            network.cut("server")  # nobody hears of the end
        network.heal()
        async with ocm.serve(where, data_dir=tmp_path, journal=MemoryJournal(ocm.Limits())):
            await asyncio.sleep(20)
            await hosted.send("in the second")
            bens = Listener(room)
            await until(lambda: bens.texts == ["in the first", "in the second"])
            assert ocm.LogChanged(rewound=False) in bens.events
