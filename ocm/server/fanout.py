"""From what the hub releases to datagrams: groups, single copies, members without a socket."""

from __future__ import annotations

from collections.abc import Sequence

from ocm.protocol.address import Address
from ocm.protocol.hub import Delivery
from ocm.protocol.link.base import Addressing, Link
from ocm.transport.base import DatagramPort, Group
from ocm.transport.batch import send_all


class Fanout:
    """Sends deliveries through one datagram port.

    ``Addressing`` decides how, here and nowhere else. Prebuilt groups live in the audiences they were
    built for and go when membership changes.
    """

    def __init__(self, port: DatagramPort) -> None:
        """Send through ``port``."""
        self._port = port

    def deliver(self, delivery: Delivery) -> None:
        """Send one delivery to its audience."""
        audience, payload, entry, skip = delivery
        if audience.form.addressing is Addressing.GROUP:
            group: Group | None = audience.prepared
            if group is None:
                group = audience.prepared = self._port.group([link.address for link in audience.links])
            if skip is None:
                group.send(payload)
            elif len(audience.links) > 1:
                group.send(payload, skip.place)
        elif audience.form.addressing is Addressing.EACH:
            self._send_each([link for link in audience.links if link is not skip], payload)
        else:
            for link in audience.links:
                if link is not skip:
                    link.take(entry)

    def send(self, address: Address, datagram: bytes) -> None:
        """Send one datagram."""
        self.send_all([(address, datagram)])

    def tell(self, link: Link, payload: bytes) -> None:
        """Send one member alone what its form encoded."""
        each = link.form.addressing is Addressing.EACH
        self.send(link.address, link.finish(payload) if each else payload)

    def _send_each(self, links: Sequence[Link], payload: bytes) -> None:
        self.send_all([(link.address, link.finish(payload)) for link in links])

    def send_all(self, datagrams: Sequence[tuple[Address, bytes]]) -> None:
        """Send datagrams, each to its address, in order."""
        send_all(self._port, datagrams)
