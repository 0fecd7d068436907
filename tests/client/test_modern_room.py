"""A room of TCRP/2 as its user sees it: enter, say, hear, read back, remove, close, leave."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

import ocm
from ocm import Delivery, MemberJoined, MemberLeft, Message, PathKind, Reason, Receipt, RoomClosed
from ocm.testing import Network
from tests.client.stage import rest, soon
from tests.modern import AIKO, BEN, URL, Listener, now_s, simulated, sitting, until, way

VERSE = [f"line {number}" for number in range(1, 9)]


async def next_message(room: ocm.Room) -> Message:
    """Return the next thing that somebody else says."""
    reader = aiter(room)
    try:
        async for event in reader:
            if isinstance(event, Message):
                return event
    finally:
        reader.close()
    raise AssertionError("the room has ended")


# --- saying and hearing -------------------------------------------------------------------------------------


@simulated
async def test_what_is_said_is_in_the_log_when_send_returns_and_everybody_hears_it_in_its_order(
    network: Network,
) -> None:
    async with (
        ocm.serve(URL) as server,
        sitting(server.url, "aiko", create=True) as hosted,
        sitting(server.url, "ben") as room,
    ):
        assert (room.name, room.user, room.encrypted, room.form) == ("r", "ben", True, None)
        assert room.connection is ocm.Connection.CONNECTED
        assert await hosted.send("hello") == Receipt(1, "hello", Delivery.IN_ROOM, 3)
        heard = await next_message(room)
        assert (heard.sender, heard.text, heard.seq) == (AIKO, "hello", 3)
        assert (heard.history, heard.plaintext, heard.is_ours) == (False, False, False)
        assert heard.time_ms is not None
        assert heard.time_ms > 1_700_000_000_000
        assert (await room.send("hello, aiko")).seq == 4
        assert [event for event in await soon(4, hosted) if not isinstance(event, ocm.PathChanged)] == [
            Receipt(1, "hello", Delivery.IN_ROOM, 3),
            MemberJoined(BEN),
            Message(BEN, "hello, aiko", 4, (await hosted.history(1))[0].time_ms),
        ]


@simulated
async def test_post_never_waits_and_its_receipt_comes_by_its_number(network: Network) -> None:
    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True) as room:
        listener = Listener(room)
        assert [room.post(line) for line in VERSE] == list(range(1, 9))
        assert not listener.receipts
        await room.drain()
        await until(lambda: len(listener.receipts) == 8)
        assert [(receipt.message_id, receipt.text, receipt.seq) for receipt in listener.receipts] == [
            (number, f"line {number}", number + 1) for number in range(1, 9)
        ]
        await room.drain()  # there is nothing left


@pytest.mark.parametrize(
    ("text", "code"), [("", "empty"), ("\ud800", "not_text"), ("x" * (60 * 1024 + 1), "too_large")]
)
@simulated
async def test_what_cannot_be_said_is_refused_at_once(network: Network, text: str, code: str) -> None:
    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True) as room:
        with pytest.raises(ocm.SendRefused) as posted:
            room.post(text)
        with pytest.raises(ocm.SendRefused) as sent:
            await room.send(text)
        assert posted.value.code == sent.value.code == code
        assert (await room.send("x" * 60 * 1024)).delivery is Delivery.IN_ROOM


@simulated
async def test_cancelling_send_stops_the_waiting_and_not_the_sending(network: Network) -> None:
    async with (
        ocm.serve(URL) as server,
        sitting(server.url, "aiko", create=True) as hosted,
        sitting(server.url, "ben") as room,
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await hosted.send("hello")
        assert (await next_message(room)).text == "hello"
        await hosted.drain()


@simulated
async def test_one_connection_serves_all_rooms_of_a_client(network: Network) -> None:
    async with (
        ocm.serve(URL) as server,
        ocm.connect(server.url, user="aiko") as client,
        client.create("one") as one,
        client.create("two") as two,
        sitting(server.url, "ben", "two") as room,
    ):
        listeners = [Listener(seat) for seat in (one, two)]
        await asyncio.gather(*(seat.send(text) for seat in (one, two) for text in VERSE))
        assert (await next_message(room)).text == "line 1"
        assert server.status().connections == 2
        assert server.status().hub.rooms == 2
        await until(lambda: [len(listener.receipts) for listener in listeners] == [8, 8])


@simulated
async def test_two_readers_do_not_keep_each_other_awake(network: Network) -> None:
    async with (
        ocm.serve(URL) as server,
        ocm.connect(server.url, user="aiko") as client,
        client.create("one") as one,
        client.create("two") as two,
    ):
        listeners = [Listener(seat) for seat in (one, two)]
        await asyncio.sleep(3600)  # were they busy the loop would give up
        for listener in listeners:
            listener.stop()


# --- who is there -------------------------------------------------------------------------------------------


@simulated
async def test_members_are_those_of_the_log_as_far_as_it_was_read_and_the_server_knows_them_all(
    network: Network,
) -> None:
    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True) as hosted:
        async with sitting(server.url, "ben") as room:
            assert room.members() == ("aiko", "ben")
            assert hosted.members() == ("aiko",)
            assert await hosted.fetch_members() == ("aiko", "ben")
        await asyncio.sleep(1)
        assert await hosted.fetch_members() == ("aiko",)
        changes = [event for event in await soon(3, hosted) if not isinstance(event, ocm.PathChanged)]
        assert changes == [MemberJoined(BEN), MemberLeft(BEN, Reason.BYE)]
        assert hosted.members() == ("aiko",)


@simulated
async def test_what_is_known_must_do_where_the_server_cannot_be_asked(network: Network) -> None:
    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True) as room:
        network.cut("aiko")
        await until(lambda: room.connection is ocm.Connection.RECONNECTING, within_s=100)
        assert await room.fetch_members() == ("aiko",)
        assert way(room) is PathKind.NONE
        for ask in (room.history, room.close, room.require_encryption, lambda: room.kick("ben")):
            with pytest.raises(ocm.TransportClosed, match="not reached"):
                await ask()
        network.heal("aiko")
        await until(lambda: room.connection is ocm.Connection.CONNECTED)


@simulated
async def test_a_room_of_hundreds_tells_all_their_names(network: Network) -> None:
    names = [f"m{number}" for number in range(450)]
    async with ocm.serve(URL) as server, contextlib.AsyncExitStack() as stack:
        host = await server.create("r", "host", policy=ocm.Policy())
        for name in names:
            await stack.enter_async_context(await server.join("r", name))
        async with sitting(server.url, "aiko") as room:
            assert await room.fetch_members() == ("host", *names, "aiko")
            await until(lambda: len(room.members()) == 452)
        await host.leave()


# --- history ------------------------------------------------------------------------------------------------


@simulated
async def test_who_comes_later_reads_back_what_was_said(network: Network) -> None:
    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True) as hosted:
        for line in VERSE:
            await hosted.send(line)
        async with sitting(server.url, "ben") as room:
            past = await room.history()
            assert [(message.sender, message.text, message.history) for message in past] == [
                (AIKO, line, True) for line in VERSE
            ]
            assert [message.text for message in await room.history(3)] == VERSE[6:]  # the newest entry is a join
            assert [message.text for message in await room.history(3, before=past[5].seq)] == VERSE[2:5]
            assert await room.history(3, before=1) == ()
            assert all(message.is_ours for message in await hosted.history(256))
            for count in (0, 257):
                with pytest.raises(ocm.LocalProtocolError):
                    await room.history(count)
            pages = await asyncio.gather(*(room.history(8, before=past[0].seq or 0 + 8) for _ in range(2)))
            assert pages[0] == pages[1]


@simulated
async def test_history_does_not_disturb_what_is_heard(network: Network) -> None:
    async with (
        ocm.serve(URL) as server,
        sitting(server.url, "aiko", create=True) as hosted,
        sitting(server.url, "ben") as room,
    ):
        listener = Listener(room)
        for line in VERSE:
            await hosted.send(line)
            assert (await room.history(1))[0].text == line
        await until(lambda: listener.texts == VERSE)


# --- the host's rights --------------------------------------------------------------------------------------


@simulated
async def test_a_host_removes_a_member_who_is_told_and_does_not_come_back(network: Network) -> None:
    async with (
        ocm.serve(URL) as server,
        sitting(server.url, "aiko", create=True) as hosted,
        sitting(server.url, "ben") as room,
    ):
        await hosted.kick("ben")
        assert (await rest(room))[-1] == ocm.Removed(Reason.KICKED)
        assert await hosted.fetch_members() == ("aiko",)
        with pytest.raises(ocm.SendRefused, match="closed"):
            await room.send("but why")
        with pytest.raises(ocm.RoomRefused) as refused:
            await hosted.kick("ben")
        assert refused.value.code == ocm.Refusal.NOT_FOUND
        await asyncio.sleep(100)
        assert await hosted.fetch_members() == ("aiko",)


@simulated
async def test_the_server_sits_in_a_room_and_removes_whom_it_likes(network: Network) -> None:
    async with (
        ocm.serve(URL) as server,
        await server.create("r", "referee") as referee,
        sitting(server.url, "ben") as room,
    ):
        assert room.policy == ocm.Policy()
        await referee.send("welcome")
        assert (await next_message(room)).sender == ocm.Person("referee")
        await room.send("thanks")
        assert await soon(2, referee) == [MemberJoined(BEN), Message(BEN, "thanks", 4)]  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert server.kick("r", "ben")
        assert (await rest(room))[-1] == ocm.Removed(Reason.KICKED)
        assert not server.kick("r", "ben")


@simulated
async def test_only_the_host_removes_closes_or_raises(network: Network) -> None:
    async with (
        ocm.serve(URL) as server,
        sitting(server.url, "aiko", create=True),
        sitting(server.url, "ben") as room,
    ):
        for ask in (room.close, room.require_encryption, lambda: room.kick("aiko")):
            with pytest.raises(ocm.RoomRefused) as refused:
                await ask()
            assert refused.value.code == ocm.Refusal.FORBIDDEN


@simulated
async def test_a_host_closes_the_room_for_everybody(network: Network) -> None:
    async with (
        ocm.serve(URL) as server,
        sitting(server.url, "aiko", create=True) as hosted,
        sitting(server.url, "ben") as room,
    ):
        await hosted.send("that was it")
        await hosted.close()
        for seat in (hosted, room):
            events = await rest(seat)
            assert events[-1] == RoomClosed(Reason.ENDED)
            with pytest.raises(ocm.SendRefused, match="closed"):
                seat.post("wait")
        assert server.status().hub.rooms == 0


@simulated
async def test_a_room_closes_when_its_host_leaves_unless_it_was_made_to_stay(network: Network) -> None:
    async with ocm.serve(URL) as server:
        for lifetime in ocm.Lifetime:
            policy = ocm.Policy(lifetime=lifetime)
            async with contextlib.AsyncExitStack() as stack:
                hosting = sitting(server.url, "aiko", create=True, policy=policy)
                hosted = await hosting.__aenter__()
                room = await stack.enter_async_context(sitting(server.url, "ben"))
                assert room.policy == hosted.policy == policy
                listener = Listener(room)
                await hosting.__aexit__(None, None, None)
                await asyncio.sleep(1)
                assert MemberLeft(AIKO, Reason.BYE) in listener.events
                if lifetime is ocm.Lifetime.CLOSE:
                    assert (await listener.end())[-1] == RoomClosed(Reason.HOST_LEFT)
                    continue
                assert (await room.send("go on")).delivery is Delivery.IN_ROOM
                await room.close()  # it is the host's right, and the host has another name now
                await listener.end()


# --- being let in -------------------------------------------------------------------------------------------


@simulated
async def test_a_refusal_says_why(network: Network) -> None:
    limits = ocm.Limits(members_per_room_max=2, rooms_max=2)
    async with (
        ocm.serve(URL, limits=limits) as server,
        sitting(server.url, "aiko", create=True),
        sitting(server.url, "ben"),
        sitting(server.url, "host", "other", create=True),
    ):
        for user, room, create, code in (
            ("cho", "nowhere", False, ocm.Refusal.NOT_FOUND),
            ("cho", "r", True, ocm.Refusal.ROOM_EXISTS),
            ("host", "other", False, ocm.Refusal.NAME_TAKEN),
            ("ＨＯＳＴ", "other", False, ocm.Refusal.NAME_TAKEN),
            ("cho", "r", False, ocm.Refusal.ROOM_FULL),
            ("cho", "third", True, ocm.Refusal.SERVER_FULL),
        ):
            with pytest.raises(ocm.RoomRefused) as refused:
                async with sitting(server.url, user, room, create=create):
                    pass
            assert refused.value.code == code
            assert refused.value.reason


@simulated
async def test_after_a_refusal_the_client_is_as_good_as_before(network: Network) -> None:
    async with ocm.serve(URL) as server, ocm.connect(server.url, user="aiko") as client:
        with pytest.raises(ocm.RoomRefused):
            async with client.join("r"):
                pass
        async with client.create("r") as room:
            assert (await room.send("hello")).seq == 2
        async with client.create("r") as room:
            assert (await room.send("hello")).seq == 2


@simulated
async def test_a_room_is_entered_once_at_a_time_and_the_first_stays_in(network: Network) -> None:
    async with ocm.serve(URL) as server, ocm.connect(server.url, user="aiko") as client, client.create("r") as room:
        with pytest.raises(ocm.LocalProtocolError, match="once"):
            async with client.join("r"):
                pass
        assert (await room.send("hello")).delivery is Delivery.IN_ROOM
        assert room.members() == ("aiko",)


@pytest.mark.parametrize("wait_s", [0.0, 2.0])
@simulated
async def test_who_may_come_in_and_as_whom_is_for_the_program_to_say(network: Network, wait_s: float) -> None:
    asked: list[ocm.Knock] = []

    async def authorize(knock: ocm.Knock) -> ocm.Verdict:
        asked.append(knock)
        await asyncio.sleep(wait_s)
        return knock.password == "sesame" and f"player {knock.user}"

    async with ocm.serve(URL, authorize=authorize) as server:
        for password in (None, "wrong"):
            with pytest.raises(ocm.RoomRefused) as refused:
                async with sitting(server.url, "aiko", create=True, password=password):
                    pass
            assert refused.value.code == ocm.Refusal.NOT_FOUND
        async with sitting(server.url, "aiko", create=True, password="sesame") as room:
            assert room.members() == ("player aiko",)
            network.move("aiko")  # and coming back it is asked about again
            await until(lambda: len(asked) == 4)
            await asyncio.sleep(wait_s + 1)
            assert (await room.send("hello")).delivery is Delivery.IN_ROOM
    assert [(knock.room, knock.user, knock.creates, knock.password) for knock in asked] == [
        ("r", "aiko", True, None),
        ("r", "aiko", True, "wrong"),
        ("r", "aiko", True, "sesame"),
        ("r", "aiko", False, "sesame"),
    ]
    assert asked[0].host == "10.0.0.2"


class Oops(Exception):
    """An error of the program's own."""


@simulated
async def test_what_fails_in_authorize_ends_the_server_and_the_one_who_asked_is_refused(network: Network) -> None:
    def authorize(_: ocm.Knock) -> bool:
        raise Oops

    async def run() -> None:
        async with ocm.serve(URL, authorize=authorize) as server:
            with pytest.raises(ocm.RoomRefused):
                async with sitting(server.url, "aiko", create=True):
                    pass
            await asyncio.sleep(1000)

    with pytest.raises(Oops):
        await run()


# --- leaving ------------------------------------------------------------------------------------------------


@simulated
async def test_leaving_says_what_is_left_to_say_and_is_idempotent(network: Network) -> None:
    async with (
        ocm.serve(URL, limits=ocm.Limits(burst_max=2, rate_per_s=2)) as server,
        sitting(server.url, "aiko", create=True) as hosted,
    ):
        listener = Listener(hosted)
        async with sitting(server.url, "ben") as room:
            for line in VERSE:
                room.post(line)
        await until(lambda: MemberLeft(BEN, Reason.BYE) in listener.events)
        assert listener.texts == VERSE
        await room.leave()
        with pytest.raises(ocm.SendRefused, match="closed"):
            room.post("too late")
        assert room.members() == ("aiko", "ben")
        assert room.connection is ocm.Connection.RECONNECTING
        with pytest.raises(ocm.TransportClosed):
            await room.history()


@simulated
async def test_what_was_heard_before_leaving_can_be_read_after_it(network: Network) -> None:
    async with (
        ocm.serve(URL) as server,
        sitting(server.url, "aiko", create=True) as hosted,
        sitting(server.url, "ben") as room,
    ):
        for line in VERSE:
            await hosted.send(line)
        await room.history(1)
        await room.leave()
        assert [event.text for event in await rest(room) if isinstance(event, Message)] == VERSE
        assert await rest(room) == []


@simulated
async def test_who_reads_while_the_room_is_left_in_a_hurry_hears_of_all_that_was_not_said(network: Network) -> None:
    async with (
        ocm.serve(URL) as server,
        sitting(server.url, "aiko", create=True),
        sitting(server.url, "ben") as room,
    ):
        reading = asyncio.create_task(rest(room))
        await asyncio.sleep(1)  # virtual: it waits for news by now
        posted = [room.post(line) for line in VERSE * 20]
        await room.leave(drain=False)
        told = [event.message_id for event in await reading if isinstance(event, Receipt)]
        assert sorted(told) == posted


@simulated
async def test_a_block_that_fails_leaves_without_saying_the_rest(network: Network) -> None:
    async def run() -> None:
        async with sitting(server.url, "ben") as room:
            for line in VERSE:
                room.post(line)
            raise Oops

    limits = ocm.Limits(burst_max=1, rate_per_s=1)
    async with ocm.serve(URL, limits=limits) as server, sitting(server.url, "aiko", create=True) as hosted:
        listener = Listener(hosted)
        start_s = now_s()
        with pytest.raises(Oops):
            await run()
        assert now_s() - start_s < 1
        await until(lambda: MemberLeft(BEN, Reason.BYE) in listener.events)


@simulated
async def test_leaving_a_server_that_is_gone_does_not_take_for_ever(network: Network) -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(ocm.serve(URL))
        seat = sitting(server.url, "aiko", create=True)
        room = await seat.__aenter__()
        await room.send("hello")
        network.cut("server")
        room.post("is anybody there")
        start_s = now_s()
        await seat.__aexit__(None, None, None)
        assert now_s() - start_s < 20
        network.heal("server")


@simulated
async def test_a_room_that_is_over_is_left_at_once(network: Network) -> None:
    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True) as hosted:
        async with sitting(server.url, "ben") as room:
            await hosted.kick("ben")
            async for event in room:
                if isinstance(event, ocm.Removed):
                    break
            start_s = now_s()
        assert now_s() - start_s < 0.1


@simulated
async def test_who_is_in_many_rooms_leaves_one_and_comes_back_to_it(network: Network) -> None:
    async with (
        ocm.serve(URL) as server,
        sitting(server.url, "host", create=True) as hosted,
        ocm.connect(server.url, user="aiko") as client,
        client.create("other"),
    ):
        listener = Listener(hosted)
        for _ in range(3):
            async with client.join("r") as room:
                await room.send("hello")
        await until(lambda: listener.events.count(MemberLeft(AIKO, Reason.BYE)) == 3)
        assert listener.events.count(MemberJoined(AIKO)) == 3
        assert listener.texts == ["hello"] * 3


# --- reading ------------------------------------------------------------------------------------------------


@simulated
async def test_a_room_has_one_iterator_and_another_goes_on_where_it_stopped(network: Network) -> None:
    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True) as room:
        reader = aiter(room)
        with pytest.raises(ocm.LocalProtocolError):
            aiter(room)
        reader.close()
        for line in VERSE[:2]:
            room.post(line)
        await room.drain()
        receipts: list[ocm.Event] = []
        while len(receipts) < 2:
            receipts += [event for event in await soon(1, room) if isinstance(event, Receipt)]
        assert [receipt.text for receipt in receipts if isinstance(receipt, Receipt)] == VERSE[:2]


async def say_a_lot(network: Network, count: int, data_dir: Path | None) -> Listener:
    """Let somebody say more than anybody reads; return who reads after all."""
    limits = ocm.Limits(burst_max=5000, rate_per_s=5000)
    async with (
        ocm.serve(URL, limits=limits, data_dir=data_dir) as server,
        sitting(server.url, "aiko", create=True) as hosted,
        sitting(server.url, "ben") as room,
    ):
        aikos = Listener(hosted)
        for number in range(count):
            hosted.post(str(number))
        await hosted.drain()
        await asyncio.sleep(10)
        sent = server.status().datagrams_sent
        await asyncio.sleep(10)
        assert server.status().datagrams_sent - sent < 20  # keepalives: it waits for the reader
        listener = Listener(room)
        await until(lambda: bool(listener.texts) and listener.texts[-1] == str(count - 1))
        await until(lambda: len(aikos.receipts) == count)
    return listener


@simulated
async def test_a_slow_reader_loses_nothing_that_the_server_keeps(network: Network, tmp_path: Path) -> None:
    listener = await say_a_lot(network, 2000, tmp_path)
    assert listener.texts == [str(number) for number in range(2000)]


@simulated
async def test_a_slow_reader_sees_how_much_a_server_without_a_disk_has_dropped(network: Network) -> None:
    listener = await say_a_lot(network, 2000, None)
    [gap] = [event for event in listener.events if isinstance(event, ocm.Gap)]
    assert 1000 < gap.missed < 2000
    numbers = range(gap.missed, 2000)
    assert listener.texts[-256:] == [str(number) for number in numbers[-256:]]
    assert len(listener.texts) + gap.missed == 2000


@simulated
async def test_a_program_that_never_reads_is_told_how_much_it_missed_of_its_own_receipts(network: Network) -> None:
    limits = ocm.Limits(events_max=10, burst_max=1000, rate_per_s=1000)
    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True, limits=limits) as room:
        for number in range(50):
            await room.send(str(number))
        await room.close()
        *notes, gap, last = await rest(room)
        assert len(notes) == 10
        assert gap == ocm.Gap(50 + 1 - 10)  # one of the notes tells that messages go by UDP
        assert last == RoomClosed(Reason.ENDED)


@simulated
async def test_what_is_said_in_one_turn_of_the_loop_shares_datagrams(network: Network) -> None:
    async with ocm.serve(URL) as server, sitting(server.url, "aiko", create=True) as room:
        await until(lambda: room.path.kind is ocm.PathKind.UDP)
        before = server.status().datagrams_received
        for number in range(40):
            room.post(f"{number}")
        await room.drain()
        assert server.status().datagrams_received - before < 10
