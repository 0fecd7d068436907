"""``ocm.blocking``: the conversation of ``ocm`` without ``async``, its waits, its threads and its ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack
from types import FrameType
from typing import TypeAlias

import pytest

import ocm
from ocm import blocking
from ocm.blocking import background
from ocm.blocking.background import Call, Ended, until
from ocm.client.classic import ClassicRoom
from ocm.protocol.control.packets import Form
from ocm.transport.base import Network
from ocm.transport.memory import MemoryNetwork

LOOPBACK = "tcrp://127.0.0.1:0"
AIKO, BEN = ocm.Person("aiko"), ocm.Person("ben")
SLOW = ocm.Limits(burst_max=1, rate_per_s=0.001)
"""An allowance of one message, and the next in a quarter of an hour."""
WAIT_S = 20.0
"""Longer than anything here takes."""


WAITS = {until.__code__}


class OurOwnError(Exception):
    """What the program around us raises."""


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def member(
    server: blocking.EmbeddedServer, user: str, *, create: bool = False, limits: ocm.Limits | None = None
) -> AbstractContextManager[blocking.Room]:
    @contextlib.contextmanager
    def entered() -> Generator[blocking.Room]:
        with (
            blocking.connect(server.url, user=user, limits=limits) as client,
            client.create("r") if create else client.join("r") as room,
        ):
            yield room

    return entered()


# --- a conversation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [None, MemoryNetwork()], ids=["sockets", "memory"])
def test_two_people_talk(network: Network | None) -> None:
    with (
        blocking.serve(LOOPBACK, network=network) as server,
        blocking.connect(server.url, user="aiko", network=network) as aiko,
        blocking.connect(server.url, user="ben", network=network) as ben,
        aiko.create("部屋") as hosted,
    ):
        assert server.url == f"tcrp://127.0.0.1:{server.tcp_port}?udp={server.udp_port}"
        with ben.join("部屋") as room:
            assert (room.name, room.user, room.connection, room.form) == (
                "部屋",
                "ben",
                ocm.Connection.CONNECTED,
                Form.OCM,
            )
            assert room.send("hello") == ocm.Receipt(1, "hello", ocm.Delivery.SENT)
            assert hosted.receive(WAIT_S) == ocm.MemberJoined(BEN)
            assert hosted.receive(WAIT_S) == ocm.Message(BEN, "hello")
            assert hosted.post("hi, ben") == 1
            hosted.drain(timeout_s=WAIT_S)
            assert room.receive(timeout_s=WAIT_S) == ocm.Receipt(1, "hello", ocm.Delivery.SENT)
            assert room.receive() == ocm.Message(AIKO, "hi, ben")
            assert room.fetch_members() == room.members() == ("aiko", "ben")
            assert server.status().hub.members == 2
            hosted.leave()
            assert list(room) == [
                ocm.MemberLeft(AIKO, ocm.Reason.BYE),
                ocm.RoomClosed(ocm.Reason.HOST_LEFT),
            ]
            assert room.receive() is None
            assert room.receive(timeout_s=0) is None
            with pytest.raises(ocm.SendRefused):
                room.post("too late")
        with pytest.raises(ocm.RoomRefused) as refusal, ben.join("部屋"):
            pass
        assert refusal.value.code == ocm.Refusal.NOT_FOUND


def test_the_program_sits_in_rooms_of_its_own_server() -> None:
    with blocking.serve(LOOPBACK) as server, server.create("r", "ref") as ref:
        assert (ref.name, ref.user) == ("r", "ref")
        with pytest.raises(ocm.RoomRefused), server.create("r", "other"):
            pass
        with server.join("r", "bot") as bot:
            ref.send("hello, bot")
            assert bot.receive(WAIT_S) == ocm.Message(ocm.Person("ref"), "hello, bot", seq=3)
            assert ref.members() == ["ref", "bot"]
            assert server.kick("r", "bot")
            assert not server.kick("r", "bot")
            assert list(bot) == [ocm.Removed(ocm.Reason.KICKED)]
        ref.leave()
        assert server.status().hub.rooms == 0


def test_mistakes_are_raised_where_a_block_is_entered() -> None:
    with pytest.raises(ocm.LocalProtocolError), blocking.connect("http://localhost", user="aiko"):
        pass
    with pytest.raises(ocm.LocalProtocolError), blocking.serve("http://localhost"):
        pass
    with blocking.serve(LOOPBACK) as server:
        with pytest.raises(ocm.AddressInUse), blocking.serve(server.url):
            pass
        with blocking.connect(server.url, user="aiko") as client, pytest.raises(ocm.LocalProtocolError), client.join():
            pass
        url = server.url
    with blocking.connect(url, user="aiko") as client, pytest.raises(ocm.ConnectFailed), client.join("r"):
        pass


def test_all_blocks_share_one_thread() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(blocking.serve(LOOPBACK))
        stack.enter_context(member(server, "aiko", create=True))
        for number in range(5):
            stack.enter_context(member(server, f"ben{number}"))
        assert sum(thread.name == "ocm.blocking" for thread in threading.enumerate()) == 1


# --- waiting -------------------------------------------------------------------------------------------


def test_a_wait_that_times_out_loses_no_event() -> None:
    with blocking.serve(LOOPBACK) as server, server.create("r", "ref") as ref, member(server, "aiko") as room:
        said = [f"message {number}" for number in range(150)]
        with pytest.raises(TimeoutError):
            room.receive(timeout_s=0.01)

        def talk() -> None:
            for text in said:
                ref.send(text)

        talker = threading.Thread(target=talk)
        talker.start()
        heard: list[str] = []
        while len(heard) < len(said):
            with contextlib.suppress(TimeoutError):  # now and then, while the event is under way
                event = room.receive(timeout_s=1e-5 * (len(heard) % 30))
                assert isinstance(event, ocm.Message)
                heard.append(event.text)
        talker.join()
        assert heard == said


def test_time_outs_of_sending_end_the_waiting_only() -> None:
    with blocking.serve(LOOPBACK) as server, server.create("r", "ref"), member(server, "aiko", limits=SLOW) as room:
        assert room.send("one", timeout_s=WAIT_S) == ocm.Receipt(1, "one", ocm.Delivery.SENT)
        with pytest.raises(TimeoutError, match="on its way"):
            room.send("two", timeout_s=0.01)
        with pytest.raises(TimeoutError, match="on their way"):
            room.drain(timeout_s=0)
        assert room.receive(0) == ocm.Receipt(1, "one", ocm.Delivery.SENT)
        with pytest.raises(TimeoutError, match="nothing happened"):
            room.receive(-1)
        assert room.post("three") == 3
        room.leave(drain=False)


def test_what_ended_the_room_is_raised_once() -> None:
    with blocking.serve(LOOPBACK) as server, server.create("r", "ref"), member(server, "aiko") as room:
        seat = room._room
        assert isinstance(seat, ClassicRoom)
        room._block.ask(lambda: seat._end(error=ocm.ConnectFailed("given up")))
        with pytest.raises(ocm.ConnectFailed):
            room.receive(WAIT_S)
        assert room.receive(WAIT_S) is None


def test_an_exception_leaves_without_waiting_for_what_was_posted() -> None:
    def fail_in_a_room() -> None:
        with member(server, "aiko", limits=SLOW) as room:
            room.post("one")
            room.post("two")
            raise OurOwnError

    with blocking.serve(LOOPBACK) as server, server.create("r", "ref"):
        with pytest.raises(OurOwnError):
            fail_in_a_room()
        assert server.status().hub.members == 1


# --- Ctrl-C --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def interrupted() -> Generator[None]:
    """Ctrl-C as soon as the main thread waits."""
    main_id = threading.main_thread().ident
    assert main_id is not None
    struck = threading.Event()

    def is_waiting() -> bool:
        frame: FrameType | None = sys._current_frames()[main_id]
        while frame is not None and frame.f_code not in WAITS:
            frame = frame.f_back
        return frame is not None

    def strike() -> None:
        while not struck.is_set():
            if is_waiting():
                struck.set()
                signal.pthread_kill(main_id, signal.SIGINT)

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        struck.set()
        thread.join()


ROOM_WAITS: dict[str, Callable[[blocking.Room], object]] = {
    "receive": lambda room: room.receive(),
    "receive with time-out": lambda room: room.receive(timeout_s=1000),
    "for": list,
    "send": lambda room: room.send("two"),
    "drain": lambda room: room.drain(),
    "leave": lambda room: room.leave(),
}


@pytest.mark.parametrize("wait", list(ROOM_WAITS.values()), ids=list(ROOM_WAITS))
def test_ctrl_c_ends_a_wait_and_the_room_goes_on(wait: Callable[[blocking.Room], object]) -> None:
    with (
        blocking.serve(LOOPBACK) as server,
        server.create("r", "ref") as ref,
        member(server, "aiko", limits=SLOW) as room,
    ):
        room.send("one")
        assert room.receive() is not None
        room.post("waits for ever")
        with interrupted():
            wait(room)
        ref.send("still there?")
        if room.receive(WAIT_S) is not None:  # it was not ``leave``
            assert room.post("three") >= 3
        room.leave(drain=False)


def test_ctrl_c_ends_the_wait_to_enter() -> None:
    async def think(_: ocm.Knock) -> bool:
        await asyncio.Event().wait()
        return True

    with (
        blocking.serve(LOOPBACK, authorize=think) as server,
        blocking.connect(server.url, user="aiko") as client,
        interrupted(),
        client.create("r"),
    ):
        raise AssertionError("nobody opens")


def test_ctrl_c_at_the_end_of_a_block_leaves_at_once() -> None:
    with blocking.serve(LOOPBACK) as server, server.create("r", "ref") as ref:
        with ExitStack() as stack:
            room = stack.enter_context(member(server, "aiko", limits=SLOW))
            room.send("one")
            room.post("waits for ever")
            with interrupted():
                stack.close()
        ref.send("the server is well")


def test_an_interrupted_receive_leaves_its_event_to_the_next() -> None:
    with blocking.serve(LOOPBACK) as server, server.create("r", "ref") as ref, server.join("r", "bot") as bot:
        ref.send("hello")
        bot._block.call(bot._hear)  # as far as the loop came before Ctrl-C
        assert bot.receive(0) == ocm.Message(ocm.Person("ref"), "hello", seq=3)


# --- failures inside -----------------------------------------------------------------------------------


def refuse_to_think(knock: ocm.Knock) -> bool:
    if knock.user == "mallory":
        raise OurOwnError("inside authorize")
    return True


def knock_out(server: blocking.EmbeddedServer) -> threading.Thread:
    """Have somebody in another thread make the server fail."""

    def knock() -> None:
        with contextlib.suppress(ocm.OcmError), member(server, "mallory"):
            pass

    thread = threading.Thread(target=knock)
    thread.start()
    return thread


def test_a_failing_server_is_told_by_the_wait_that_caused_it() -> None:
    with (
        pytest.raises(OurOwnError),
        blocking.serve(LOOPBACK, authorize=refuse_to_think) as server,
        member(server, "mallory", create=True),
    ):
        raise AssertionError("not reached")


Wait: TypeAlias = Callable[[blocking.EmbeddedServer, blocking.Room], object]
FAILURE_WAITS: dict[str, Wait] = {
    "receive": lambda _, room: room.receive(),
    "for": lambda _, room: list(room),
    "status": lambda server, _: server.status(),
    "members": lambda _, room: room.members(),
}


@pytest.mark.parametrize("wait", list(FAILURE_WAITS.values()), ids=list(FAILURE_WAITS))
def test_a_failing_server_is_told_by_whatever_its_block_waits_for(wait: Wait) -> None:
    def run() -> None:
        with (
            blocking.serve(LOOPBACK, authorize=refuse_to_think) as server,
            member(server, "aiko", create=True) as room,
        ):
            thread = knock_out(server)
            try:
                while True:
                    wait(server, room)
            finally:
                thread.join()

    with pytest.raises(OurOwnError):
        run()


@contextlib.contextmanager
def failed_server() -> Generator[blocking.EmbeddedServer]:
    """A block whose program did not care that its server failed."""
    with blocking.serve(LOOPBACK, authorize=refuse_to_think) as server:
        with contextlib.suppress(OurOwnError), member(server, "mallory", create=True):
            pass
        yield server


def test_a_failing_server_ends_its_block_even_if_the_program_looks_away() -> None:
    def look_away() -> None:
        with failed_server() as server:
            with pytest.raises(OurOwnError):
                server.status()
            with pytest.raises(OurOwnError), blocking.connect(server.url, user="aiko"):
                pass

    with pytest.raises(OurOwnError):
        look_away()


def test_an_error_of_the_program_is_the_context_of_the_servers() -> None:
    with pytest.raises(OurOwnError) as raised, failed_server():
        raise ZeroDivisionError
    assert isinstance(raised.value.__context__, ZeroDivisionError)


def test_ctrl_c_goes_before_a_failure_of_the_server() -> None:
    with pytest.raises(KeyboardInterrupt), failed_server():
        raise KeyboardInterrupt


# --- threads -------------------------------------------------------------------------------------------


def test_many_threads_may_talk_in_one_room() -> None:
    with blocking.serve(LOOPBACK) as server, server.create("r", "ref") as ref, member(server, "aiko") as room:
        assert ref.receive(WAIT_S) == ocm.MemberJoined(AIKO)

        def talk(who: int) -> None:
            for number in range(20):
                room.send(f"{who} {number}")

        threads = [threading.Thread(target=talk, args=[who]) for who in range(8)]
        for thread in threads:
            thread.start()
        heard = [ref.receive(WAIT_S) for _ in range(160)]
        for thread in threads:
            thread.join()
        texts = [event.text for event in heard if isinstance(event, ocm.Message)]
        assert sorted(texts) == sorted(f"{who} {number}" for who in range(8) for number in range(20))
        receipts = [room.receive(WAIT_S) for _ in texts]
        assert sorted(event.message_id for event in receipts if isinstance(event, ocm.Receipt)) == list(range(1, 161))


def test_threads_that_receive_at_the_same_time_share_the_events() -> None:
    heard: list[ocm.Event] = []
    with blocking.serve(LOOPBACK) as server, server.create("r", "ref") as ref, server.join("r", "bot") as bot:
        threads = [threading.Thread(target=lambda: heard.extend(bot)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(100):
            ref.send(str(number))
        ref.leave()
        for thread in threads:
            thread.join()
    texts = [event.text for event in heard if isinstance(event, ocm.Message)]
    assert sorted(texts, key=int) == [str(number) for number in range(100)]
    assert ocm.RoomClosed(ocm.Reason.HOST_LEFT) in heard


def test_an_iteration_in_another_thread_ends_with_the_block() -> None:
    heard: list[ocm.Event] = []
    with blocking.serve(LOOPBACK) as server, server.create("r", "ref") as ref:
        with server.join("r", "bot") as bot:
            events, others = iter(bot), iter(bot)
            ref.send("hello")
            heard.append(next(events))
            thread = threading.Thread(target=lambda: heard.extend(events))
            thread.start()
        thread.join()
        assert next(events, None) is None
        assert next(others, None) is None
    assert heard == [ocm.Message(ocm.Person("ref"), "hello", seq=3)]


def test_a_wait_in_another_thread_does_not_outlive_the_block() -> None:
    async def for_ever() -> None:
        begun.set()
        await asyncio.Event().wait()

    def wait() -> None:
        with contextlib.suppress(ocm.LocalProtocolError):
            bot._block.call(for_ever)
            raise AssertionError("it never comes")
        told.set()

    begun, told = threading.Event(), threading.Event()
    with blocking.serve(LOOPBACK) as server, server.create("r", "bot") as bot:
        thread = threading.Thread(target=wait)
        thread.start()
        assert begun.wait(WAIT_S)
    thread.join()
    assert told.is_set()


def test_a_call_that_comes_when_the_thread_has_ended_is_refused() -> None:
    with blocking.serve(LOOPBACK) as server:
        ended = server._block._background
        assert ended is not None
        unheard: Call[None] = Call(ended, frozenset())
    with pytest.raises(Ended):
        unheard.wait()
    with pytest.raises(Ended):
        Call(ended, frozenset())


def test_waits_go_in_steps_where_the_system_is_deaf_to_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_STEP_S", 1e-4)
    with blocking.serve(LOOPBACK) as server, server.create("r", "ref"), member(server, "aiko") as room:
        assert room.fetch_members() == ("ref", "aiko")


# --- where it cannot be called -------------------------------------------------------------------------


def test_nothing_can_be_called_after_the_block() -> None:
    with blocking.serve(LOOPBACK) as server, server.create("r", "ref") as ref:
        with blocking.connect(server.url, user="aiko") as client, client.join("r") as room:
            pass
        late: list[Callable[[], object]] = [
            room.receive,
            room.members,
            room.fetch_members,
            room.drain,
            room.leave,
            lambda: room.post("x"),
            lambda: room.send("x"),
            lambda: iter(room),
            lambda: client.join("r"),
            lambda: client.create("s"),
        ]
        for call in late:
            with pytest.raises(ocm.LocalProtocolError, match="has ended"):
                call()
    late = [ref.receive, ref.members, ref.leave, lambda: ref.send("x"), server.status]
    late += [lambda: server.kick("r", "ref"), lambda: server.join("r", "x"), lambda: server.create("r", "x")]
    for call in late:
        with pytest.raises(ocm.LocalProtocolError, match="has ended"):
            call()


def test_a_block_that_was_asked_for_too_long_ago_cannot_be_entered() -> None:
    with blocking.serve(LOOPBACK) as server:
        with blocking.connect(server.url, user="aiko") as client:
            membership = client.create("r")
        with pytest.raises(ocm.LocalProtocolError, match="has ended"), membership:
            pass
        with pytest.raises(ocm.LocalProtocolError, match="entered once"), membership:
            pass


def test_a_room_ends_with_its_client_whatever_the_order() -> None:
    with blocking.serve(LOOPBACK) as server, server.create("r", "ref"):
        outer = blocking.connect(server.url, user="aiko")
        client = outer.__enter__()
        inner = client.join("r")
        room = inner.__enter__()
        outer.__exit__(None, None, None)
        with pytest.raises(ocm.LocalProtocolError, match="has ended"):
            room.members()
        inner.__exit__(None, None, None)
        assert server.status().hub.members == 1


async def test_a_running_event_loop_is_not_stopped() -> None:
    for block in (blocking.connect("tcrp://localhost", user="aiko"), blocking.serve(LOOPBACK)):
        with pytest.raises(ocm.LocalProtocolError, match="event loop"), block:
            pass

    def elsewhere() -> None:
        with blocking.serve(LOOPBACK) as server:
            loop.call_soon_threadsafe(servers.set_result, server)
            assert done.wait(WAIT_S)

    loop = asyncio.get_running_loop()
    servers: asyncio.Future[blocking.EmbeddedServer] = loop.create_future()
    done = threading.Event()
    thread = threading.Thread(target=elsewhere)
    thread.start()
    server = await servers
    with pytest.raises(ocm.LocalProtocolError, match="event loop"):
        server.status()
    done.set()
    thread.join()


async def test_a_block_left_inside_an_event_loop_ends_nevertheless() -> None:
    def enter() -> None:
        server.append(block.__enter__())

    server: list[blocking.EmbeddedServer] = []
    block = blocking.serve(LOOPBACK)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    with pytest.raises(ocm.LocalProtocolError, match="event loop"):
        block.__exit__(None, None, None)
    with pytest.raises(ocm.LocalProtocolError):
        server[0].status()


def test_a_block_left_in_ocms_own_thread_ends_nevertheless() -> None:
    block = blocking.serve(LOOPBACK)
    server = block.__enter__()
    ended = server._block._background
    assert ended is not None
    with pytest.raises(ocm.LocalProtocolError):
        server._block.ask(lambda: block.__exit__(None, None, None))
    ended.thread.join()


def test_authorize_may_ask_what_needs_no_waiting() -> None:
    rooms: list[int] = []

    def authorize(knock: ocm.Knock) -> bool:
        rooms.append(server.status().hub.rooms)
        if knock.user == "mallory":
            server.create("other", "ref").__enter__()
        return True

    with (
        pytest.raises(ocm.LocalProtocolError, match="event loop"),
        blocking.serve(LOOPBACK, authorize=authorize) as server,
        member(server, "aiko", create=True),
        member(server, "mallory"),
    ):
        pass
    assert rooms == [0, 1]


def test_a_process_that_could_not_start_a_thread_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError), blocking.serve(LOOPBACK):
            pass
    with blocking.serve(LOOPBACK) as server:
        assert server.status().connections == 0


# --- processes -----------------------------------------------------------------------------------------


def python(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(script), *arguments]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def output(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, err) == (0, "")
    return out


def test_the_interpreter_leaves_what_the_program_never_left() -> None:
    with blocking.serve(LOOPBACK) as server, server.create("r", "ref") as ref:
        script = """
            import sys, ocm.blocking
            blocks = [ocm.blocking.connect(sys.argv[1], user="aiko")]
            blocks.append(blocks[0].__enter__().join("r"))
            print(blocks[1].__enter__().name)
        """
        assert output(python(script, server.url)) == "r\n"
        assert ref.receive(WAIT_S) == ocm.MemberJoined(AIKO)
        assert ref.receive(WAIT_S) == ocm.MemberLeft(AIKO, ocm.Reason.BYE)


def test_ctrl_c_ends_a_program_that_waits_and_its_room_is_left() -> None:
    with blocking.serve(LOOPBACK) as server, server.create("r", "ref") as ref:
        script = """
            import sys, ocm.blocking
            try:
                with ocm.blocking.connect(sys.argv[1], user="aiko") as client, client.join("r") as room:
                    room.send("ready")
                    for event in room:
                        pass
            except KeyboardInterrupt:
                print("bye")
        """
        process = python(script, server.url)
        assert ref.receive(WAIT_S) == ocm.MemberJoined(AIKO)
        assert ref.receive(WAIT_S) == ocm.Message(AIKO, "ready", seq=3)
        process.send_signal(signal.SIGINT)
        assert output(process) == "bye\n"
        assert ref.receive(WAIT_S) == ocm.MemberLeft(AIKO, ocm.Reason.BYE)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_process_leaves_its_parents_blocks_alone() -> None:
    script = """
        import os, ocm, ocm.blocking
        with ocm.blocking.serve("tcrp://127.0.0.1:0") as server, server.create("r", "ref") as ref:
            with ocm.blocking.connect(server.url, user="aiko") as client, client.join("r") as room:
                read, write = os.pipe()
                if not (child := os.fork()):
                    try:
                        room.post("from the child")
                    except ocm.LocalProtocolError as error:
                        os.write(write, str(error).encode())
                    with ocm.blocking.connect(server.url, user="ben") as own, own.join("r") as own_room:
                        own_room.send("own")
                else:
                    assert os.waitpid(child, 0)[1] == 0
                    print(os.read(read, 1000).decode())
                    room.send("from the parent")
            if child:
                for _ in range(6):
                    print(ref.receive(20))
    """
    lines = output(python(script)).splitlines()
    assert "belongs to the process that forked" in lines[0]
    shown = [
        ocm.MemberJoined(AIKO),
        ocm.MemberJoined(BEN),
        ocm.Message(BEN, "own", seq=4),
        ocm.MemberLeft(BEN, ocm.Reason.BYE),
        ocm.Message(AIKO, "from the parent", seq=6),
        ocm.MemberLeft(AIKO, ocm.Reason.BYE),
    ]
    assert lines[1:] == [str(event) for event in shown]
