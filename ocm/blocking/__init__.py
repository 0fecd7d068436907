"""``ocm`` for scripts and classrooms: the same rooms, without ``async``.

    with ocm.blocking.connect("tcrps://192.168.1.5#fp=...", user="aiko") as client, client.join("lobby") as room:
        room.send("hello")
        for event in room:
            print(event)

Names, arguments, events and errors are those of ``ocm``; every call waits for what the one of ``ocm`` is awaited
for. Behind it the objects of ``ocm`` run on one event loop in one thread, which the first block of a program starts
and its last one ends.

Ctrl-C ends any wait. Calls may come from any thread. Where an event loop runs already (a coroutine, a notebook) the
calls raise ``LocalProtocolError``: they would stop it. A process that forks keeps its blocks to itself: in the
child calls raise ``LocalProtocolError``, leaving a block does nothing, and new blocks may be opened. A block that
was never left is left when the interpreter exits.
"""

from ocm.blocking.rooms import Client, EmbeddedServer, LocalMember, Room, connect, serve

__all__ = ["Client", "EmbeddedServer", "LocalMember", "Room", "connect", "serve"]
