"""A blocking chat client over the pure core, with nothing but ``socket``: the protocol is ocm's, the I/O is yours.

The machines of ``ocm.protocol`` take the bytes that came and give the bytes to send; they know no socket and no
clock. So they fit a thread, a game loop, another event loop or a test.

Run it: python examples/sans_io_client.py                                  against a server of its own
        python examples/sans_io_client.py tcrp://localhost/lobby aiko hello      until it is quiet for ten seconds
"""

import socket
import sys
from contextlib import suppress
from threading import Thread

import ocm
import ocm.blocking
from ocm.protocol.control.client import ClientControl, ClientEvent, Seated
from ocm.protocol.control.packets import Form, Violation
from ocm.protocol.limits import DATAGRAM_SIZE_MAX
from ocm.protocol.link.voice import Said, Voice
from ocm.protocol.url import parse_url
from ocm.protocol.wire.classic import Operation


def answer(stream: socket.socket, control: ClientControl) -> ClientEvent:
    """Read until the machine has understood something."""
    while data := stream.recv(4096):
        for event in control.receive_data(data):
            if isinstance(event, Violation):
                raise event.error
            return event  # one question, one answer
    raise ConnectionError("the server hung up")


def chat(url: str, user: str, text: str, *, listen_s: float = 10.0) -> None:
    """Enter the URL's room, say ``text``, show what others say until it has been quiet for ``listen_s``, leave."""
    where = parse_url(url)
    room = where.room or "lobby"
    with (
        socket.create_connection((where.host, where.tcp_port), timeout=15.0) as stream,
        socket.socket(stream.family, socket.SOCK_DGRAM) as port,
    ):
        port.bind(stream.getsockname()[:2])  # the same number: some servers send there and nowhere else
        port.settimeout(listen_s)
        server = (*stream.getpeername()[:1], where.udp_port)
        control = ClientControl(form=where.form)
        stream.sendall(control.send_request(Operation.JOIN, room=room, user=user))
        match answer(stream, control):
            case Seated(form=form, token=token):
                voice = Voice(form, room, user, token)
            case other:
                raise SystemExit(f"no seat: {ocm.safe_text(str(other))}")

        port.sendto(voice.encode(text.encode()), server)
        with suppress(TimeoutError):
            while True:
                data, source = port.recvfrom(DATAGRAM_SIZE_MAX)
                heard = voice.decode(data) if source[:2] == server else None
                if isinstance(heard, Said):
                    print(f"{ocm.safe_text(heard.name or '?')}: {ocm.safe_text(heard.text)}", flush=True)
        if form is Form.OCM:
            stream.sendall(control.send_leave())
            answer(stream, control)
            print("left")


def answer_all(room: ocm.blocking.LocalMember) -> None:
    for event in room:
        if isinstance(event, ocm.Message):
            room.send(f"welcome, {event.sender.name}; you said {event.text}")


def main() -> None:
    with ocm.blocking.serve("tcrp://127.0.0.1:0") as server, server.create("lobby", "host") as room:
        Thread(target=answer_all, args=[room]).start()
        chat(server.url.replace("?", "/lobby?"), "aiko", "hello", listen_s=0.5)


if __name__ == "__main__":
    chat(*sys.argv[1:]) if len(sys.argv) == 4 else main()
