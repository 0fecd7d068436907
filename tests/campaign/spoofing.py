"""Somebody who sees all datagrams sends them on in the name of others: how much the server sends to those others.

Genuine datagrams are caught, kept back and sent on from the addresses of victims, with replays and junk between them,
while the room is busy and members come, go quiet and lose their paths. Nobody at those addresses ever answers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from ocm.protocol.address import Address, make_address
from ocm.protocol.session.addresses import Addresses
from ocm.protocol.wire.frames import Challenge, Padding, Ping, Publish, write_frame
from ocm.protocol.wire.sealed import FRAMES_SIZE_MAX, read_sealed
from ocm.transport.link_model import Draws, stream_key
from tests.protocol.desk import SERVER, Client, Desk, known

VICTIMS: Final = 40


@dataclass
class Account:
    """What came from an address that is nobody's, and what went there."""

    received: int = 0
    """Bytes of what opened."""
    sent: int = 0
    packets: int = 0
    """Since it last became a candidate."""


@dataclass
class Audit:
    """Everything that a server sends to those who never answered."""

    accounts: dict[tuple[str, Address], Account] = field(default_factory=dict[tuple[str, Address], Account])
    """By the member that seems to be there, and the address."""
    taken: int = 0
    """Datagrams from victims that opened."""
    dropped: int = 0
    sent: int = 0
    """Datagrams to victims."""
    bytes_ratio: float = 0.0
    """The most bytes that went to a victim for one that came from there."""
    packets: int = 0
    """The most datagrams to a victim from one time that it seemed to be where a member is."""

    def take(self, member: str, address: Address, size: int, *, is_new: bool) -> None:
        """Note a datagram that opened; ``is_new``: its source is a candidate by it."""
        account = self.accounts.setdefault((member, address), Account())
        account.received += size
        account.packets *= not is_new
        self.taken += 1

    def send(self, member: str, address: Address, size: int) -> None:
        """Note a datagram that goes out."""
        account = self.accounts.setdefault((member, address), Account())
        account.sent += size
        account.packets += 1
        self.sent += 1
        self.bytes_ratio = max(self.bytes_ratio, account.sent / max(1, account.received))
        self.packets = max(self.packets, account.packets)


class Attack:
    """One server, its members, and who sends in the name of others."""

    def __init__(self, seed: int) -> None:
        self.desk = Desk()
        self.draws = Draws(stream_key(seed, "spoofing"))
        self.audit = Audit()
        host = Client(self.desk, "host").authenticate()
        host.create("lobby")
        self.members = [host]
        self.caught: list[bytes] = []
        self.said: Counter[Client] = Counter()
        for number in range(4):
            self.members.append(known(self.desk, f"m{number}"))
            self.members[-1].join("lobby")
        for member in self.members[:3]:  # the others have no path: what comes first in their name comes from a victim
            member.use_datagrams()
        self.homes = {member.address for member in self.members}

    def below(self, bound: int) -> int:
        return self.draws.bits() % bound

    def victim(self) -> Address:
        return make_address(f"10.66.{self.below(VICTIMS)}.1", 4000)

    def play(self, rounds: int) -> Audit:
        deeds = [self.spoof, self.spoof, self.spoof, self.replay, self.talk, self.talk, self.go_on, self.wait]
        for _ in range(rounds):
            deeds[self.below(len(deeds))]()
        self.desk.wait(60.0)
        self._settle()
        return self.audit

    # --- deeds --------------------------------------------------------------------------------------------

    def spoof(self) -> None:
        """Keep back what a member sends, small or large, and send it on from a victim, perhaps some of it twice."""
        member = self.members[self.below(len(self.members))]
        channel, session = member.channel, member.session
        if channel is None or session.channel is None or session.is_over:
            return
        frame = (Ping(), Challenge(self.draws.data(8)), Padding(1 + self.below(FRAMES_SIZE_MAX - 50)))[self.below(3)]
        source = self.victim()
        for _ in range(1 + self.below(3)):
            data = channel.lane.seal(write_frame(Ping()) + write_frame(frame))
            self.caught.append(data)
            whereabouts = session.channel.whereabouts
            assert isinstance(whereabouts, Addresses)
            is_new = source not in whereabouts._candidates
            self.audit.take(member.name, source, len(data), is_new=is_new)
            self.desk.reception.receive_batch([(data, source)], now_s=self.desk.now_s)
            assert session.channel.lane.largest == int.from_bytes(data[10:16], "big"), "it opened"
            self._settle()

    def replay(self) -> None:
        """Send old datagrams, and such as were changed, from a victim: it is as if nothing came."""
        source = self.victim()
        for _ in range(20):
            data = self.caught[self.below(len(self.caught))] if self.caught else b"\0\x0e" + bytes(40)
            if self.below(2):
                data = data[:-1] + bytes([data[-1] ^ 1])
            self.audit.dropped += 1
            self.desk.reception.receive_batch([(data, source)], now_s=self.desk.now_s)
            self._settle()

    def talk(self) -> None:
        """Let somebody say much, so that there is much to send to everybody."""
        member = self.members[self.below(len(self.members))]
        if member.session.is_over:
            return
        for _ in range(1 + self.below(20)):
            self.said[member] += 1
            member.say(Publish(member.handles["lobby"], self.said[member], 0, b"x" * self.below(900)))
            self._settle()

    def go_on(self) -> None:
        """Let members hear what is theirs, and answer from where they are."""
        for member in self.members:
            if member.channel is not None and not member.session.is_over:
                for _, data in member.channel.datagrams_to_send(now_s=self.desk.now_s):
                    self.desk.reception.receive_batch([(data, member.address)], now_s=self.desk.now_s)
        self._settle()

    def wait(self) -> None:
        self.desk.wait((0.1, 0.6, 1.1, 3.0)[self.below(4)])
        for member in self.members:
            if member.channel is not None:
                member.channel.handle_timeout(now_s=self.desk.now_s)
        self._settle()

    # --- helpers ------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Look at everything that the server sends; what is for a member's own address comes there."""
        self.desk.flush()
        for member in self.members:
            arriving, member.arriving = member.arriving, []
            for address, data in arriving:
                if address in self.homes:
                    self._hear(member, data)
                else:
                    self.audit.send(member.name, address, len(data))

    def _hear(self, member: Client, data: bytes) -> None:
        datagram = read_sealed(data)
        if datagram is not None and member.channel is not None and self.below(4):
            member.channel.receive_datagram(datagram, SERVER, len(data), now_s=self.desk.now_s)


def spoof(rounds: int, *, seed: int) -> Audit:
    """Play so many deeds of somebody who sends in the name of others; return what came of it."""
    return Attack(seed).play(rounds)
