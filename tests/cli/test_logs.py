"""What ``ocm serve`` logs, at its most talkative: nothing that a peer writes acts on the screen it is read on."""

import asyncio
import logging
import signal
import socket
import sys

import pytest

from ocm.cli.machine import _SafeFormatter
from tests.cli.hostile import HOSTILE, controls
from tests.cli.program import PATIENCE_S, serving, two_in_a_room
from tests.peers import CREATE, JOIN, datagram, request

RAW = [text.encode(errors="surrogatepass") for text in HOSTILE]


def record(message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("ocm", logging.ERROR, "", 0, message, arguments, info)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_logged_text_is_one_harmless_line(text: str) -> None:
    line = _SafeFormatter("%(levelname)s %(message)s").format(record("somebody said %s", text))
    assert line.startswith("ERROR somebody said ")
    assert controls(line) == []


@pytest.mark.parametrize("text", HOSTILE)
def test_a_logged_error_has_the_lines_of_its_traceback_and_none_that_acts(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError as error:
        shown = _SafeFormatter("%(message)s").format(record("it failed", error=error))
    assert shown.startswith("it failed\nTraceback (most recent call last):\n")
    assert controls(shown.replace("\n", "")) == []


async def _say(port: int, data: bytes) -> None:
    """Send bytes on a connection of their own, and let the server make of it what it will."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    async with asyncio.timeout(PATIENCE_S):
        try:
            while await reader.read(65_536):
                pass
        except ConnectionError:
            pass
    writer.close()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
async def test_no_hostile_byte_comes_out_of_a_server_however_talkative() -> None:
    async with serving("-vv") as (server, ready):
        url = ready["join_classic"][0]
        async with two_in_a_room(url) as (aiko, bob):
            bob.type(*(text for text in HOSTILE if text.isprintable() and text))
            for number, raw in enumerate(RAW):
                name = raw[:80].decode("latin-1")
                await _say(ready["tcp_port"], request("plain", CREATE, f"r{number}", name))
                await _say(ready["tcp_port"], request("ocm", JOIN, name, "carl"))
                await _say(ready["tcp_port"], raw)
                await _say(ready["tcp_port"], b"\x16\x03\x01\x00\xff\x01" + raw)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for raw in RAW:
                    for junk in (raw, datagram(raw[:200], raw[:200], raw), b"\0\x0e" + raw):
                        sock.sendto(junk, ("127.0.0.1", ready["udp_port"]))
            aiko.end_input()
            await aiko.finish()
        server.send_signal(signal.SIGTERM)
        status, err = await server.finish()
    assert status == 0
    written = "\n".join([*server.seen, err])
    assert controls(written.replace("\n", "")) == []
