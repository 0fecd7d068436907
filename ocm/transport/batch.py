"""Many datagrams through one port."""

from __future__ import annotations

from collections.abc import Sequence

from ocm.protocol.address import Address
from ocm.transport.base import DatagramPort


def send_all(port: DatagramPort, datagrams: Sequence[tuple[Address, bytes]]) -> None:
    """Send datagrams, each to its address, in order."""
    done = 0
    while done < len(datagrams):
        for slot in port.slots(len(datagrams) - done):
            slot.to, datagram = datagrams[done]
            slot.view[: len(datagram)] = datagram
            slot.size = len(datagram)
            done += 1
        port.flush()
