"""What must hold of a world, whatever was done to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ocm.protocol.entry import Entry, Kind
from ocm.protocol.events import (
    Delivery,
    Event,
    Gap,
    LogChanged,
    MemberJoined,
    MemberLeft,
    Message,
    PolicyChanged,
    Receipt,
    RoomClosed,
)
from tests.campaign.world import ROOM, Person, World


@dataclass
class Reader:
    """What one user has seen, compared with the log as it comes."""

    seqs: list[int] = field(default_factory=list[int])
    texts: dict[int, str] = field(default_factory=dict[int, str])
    receipts: list[Receipt] = field(default_factory=list[Receipt])
    changes: int = 0
    gaps: int = 0


class Checks:
    """Watches a world. A violation is an assertion that fails, at once where that is possible."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.readers: dict[str, Reader] = {}
        self.delays_s: list[float] = []
        self.deliveries = 0
        self.never: set[str] = set()
        """What was said and not stored before a client was killed: it cannot have left."""
        self.untold: set[str] = set()
        """What was settled, and its author was killed before seeing so."""
        world.watchers.append(self.watch)

    def reader(self, person: Person) -> Reader:
        return self.readers.setdefault(person.name, Reader())

    def watch(self, person: Person, event: Event) -> None:
        reader = self.reader(person)
        match event:
            case Message(text=text, seq=seq, history=False):
                assert seq is not None
                assert not reader.seqs or seq > reader.seqs[-1] or reader.changes, f"{person.name} read {seq} too late"
                reader.seqs.append(seq)
                reader.texts[seq] = text
                self._count(text)
            case Receipt(text=text, delivery=delivery, seq=seq):
                said = person.said.get(text)
                assert said is not None, f"{person.name} has a receipt of what it never said"
                assert said.receipt is None, f"{person.name} has two receipts of {text!r}"
                said.receipt = event
                reader.receipts.append(event)
                if delivery is Delivery.IN_ROOM:
                    assert seq is not None
                    self._count(text)
            case LogChanged():
                reader.changes += 1
            case Gap(missed=missed):
                reader.gaps += missed
            case MemberJoined() | MemberLeft() | RoomClosed() | PolicyChanged():
                pass
            case _:
                pass

    def _count(self, text: str) -> None:
        self.deliveries += 1
        for person in self.world.people.values():
            said = person.said.get(text)
            if said is not None:
                self.delays_s.append(self.world.now_s - said.posted_s)
                return
        assert text in self.untold, f"nobody ever said {text!r}"

    def crash(self, person: Person) -> None:
        """Kill a client, and expect of it what it has stored."""
        person.crash()
        memory = person.memory.rooms.get(ROOM)
        posted: set[str] = set() if memory is None else {one.body.decode() for one in memory.posted.values()}
        for text, said in list(person.said.items()):
            if text in posted:
                said.receipt = None  # whatever it was told, it does not know that
            elif said.receipt is None:
                del person.said[text]
                if text in person.stored:
                    self.untold.add(text)
                else:
                    self.never.add(text)
        reader = self.reader(person)
        last = 0 if memory is None else memory.last
        reader.seqs = [seq for seq in reader.seqs if seq <= last]
        reader.texts = {seq: text for seq, text in reader.texts.items() if seq <= last}

    def settle(self, *, within_s: float = 10.0) -> None:
        """When faults have stopped, every message is in the room or refused within so many seconds."""
        world = self.world
        deadline_s = world.now_s + within_s
        while world.now_s < deadline_s and not self._is_settled():
            world.run(until_s=min(world.now_s + 0.25, deadline_s))
        waiting = {
            person.name: [said.text for said in person.said.values() if said.receipt is None][:5]
            for person in world.people.values()
            if any(said.receipt is None for said in person.said.values())
        }
        assert not waiting, f"not settled {within_s} s after the faults: {waiting}"

    def _is_settled(self) -> bool:
        return all(said.receipt is not None for person in self.world.people.values() for said in person.said.values())

    def finish(self, *, all_read: bool = True) -> None:
        """Compare everything that was seen with what is in the log."""
        world = self.world
        logs = list(world.ledger.logs.values())
        assert logs, "a room was made"
        texts = [entry for log in logs for entry in log.entries if entry.kind is Kind.TEXT]
        said = [text.body.decode() for text in texts]
        assert len(set(said)) == len(said), "a message is in the log twice"
        assert not self.never.intersection(said), "a message left before it was stored"
        for log in logs:
            self._check_order(log.entries)
        where = {entry.body.decode(): entry.seq for entry in texts}
        for person in world.people.values():
            for one in person.said.values():
                receipt = one.receipt
                assert isinstance(receipt, Receipt), f"{one.text!r} has no receipt"
                if receipt.delivery is Delivery.IN_ROOM:
                    assert where.get(one.text) == receipt.seq, f"{one.text!r} is not where its receipt says"
                elif receipt.delivery is Delivery.REFUSED:
                    assert one.text not in where, f"{one.text!r} was refused and is in the log"
        if len(logs) == 1:
            for person in world.people.values():
                self._check_reader(person, logs[0].entries, all_read=all_read)

    def _check_order(self, entries: list[Entry]) -> None:
        last: dict[int, int] = {}
        for entry in entries:
            if entry.message_id:
                assert entry.message_id > last.get(entry.sender, 0), "an author's messages are out of order"
                last[entry.sender] = entry.message_id

    def _check_reader(self, person: Person, entries: list[Entry], *, all_read: bool) -> None:
        reader = self.reader(person)
        if reader.changes or reader.gaps:
            return
        joined = next((e.seq for e in entries if e.kind is Kind.JOIN and e.name == person.name), None)
        assert joined is not None, f"{person.name} was let in"
        owed = {
            entry.seq: entry.body.decode()
            for entry in entries
            if entry.kind is Kind.TEXT and entry.seq > joined and entry.name != person.name
        }
        seen = reader.texts
        assert len(reader.seqs) == len(set(reader.seqs)), f"{person.name} read something twice"
        assert reader.seqs == sorted(reader.seqs), f"{person.name} read out of order"
        assert all(owed.get(seq) == text for seq, text in seen.items()), f"{person.name} read what is not in the log"
        if all_read:
            missing = sorted(set(owed) - set(seen))[:5]
            assert not missing, f"{person.name} never read {missing}"
