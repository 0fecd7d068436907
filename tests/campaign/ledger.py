"""A journal for worlds of pure machines: what is committed outlives the server, what is not is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ocm.protocol.entry import (
    CLASSIC_POLICY,
    Access,
    Answer,
    Entry,
    Identity,
    Kept,
    KeptMember,
    KeptRoom,
    Kind,
    Moved,
    Opened,
    Policy,
    Record,
    Refused,
    Step,
)
from ocm.protocol.session.publishing import ANSWERS_KEPT, digest_of


@dataclass
class KeptLog:
    """One incarnation of a room."""

    name: str
    incarnation: int
    log_id: bytes = b""
    policy: Policy = CLASSIC_POLICY
    entries: list[Entry] = field(default_factory=list[Entry])
    members: dict[int, KeptMember] = field(default_factory=dict[int, KeptMember])
    former: list[KeptMember] = field(default_factory=list[KeptMember])
    next_member: int = 1
    closed: bool = False

    def kept(self) -> KeptRoom:
        return KeptRoom(
            name=self.name,
            incarnation=self.incarnation,
            log_id=self.log_id,
            policy=self.policy,
            last_seq=len(self.entries),
            oldest_seq=1,
            next_member=self.next_member,
            time_ms=self.entries[-1].time_ms if self.entries else 0,
            closed=self.closed,
            members=tuple(self.members.values()),
            former=tuple(self.former),
        )


class Ledger:
    """Everything that was committed, and its fold."""

    def __init__(self) -> None:
        self.logs: dict[int, KeptLog] = {}
        self.identities: dict[bytes, Identity] = {}
        self.commits = 0

    def commit(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self._apply(step)
        self.commits += len(steps)

    def read(self, _room: str, incarnation: int, first: int, count: int) -> Sequence[Entry]:
        return self.logs[incarnation].entries[first - 1 : first - 1 + count]

    def load(self) -> Kept:
        return Kept(
            rooms=tuple(log.kept() for log in self.logs.values()),
            identities=tuple(self.identities.values()),
            last_incarnation=max(self.logs, default=0),
        )

    def _apply(self, step: Step) -> None:
        match step:
            case Identity(client):
                self.identities[client] = step
            case Opened(name, incarnation, log_id, policy):
                self.logs[incarnation] = KeptLog(name, incarnation, log_id, policy)
            case Refused(_, incarnation, sender, message_id, status, time_ms, digest):
                self._answer(self.logs[incarnation], sender, Answer(message_id, status, 0, time_ms, digest))
            case Moved(_, incarnation, sender, door):
                members = self.logs[incarnation].members
                members[sender] = replace(members[sender], door=door)
            case Record(_, incarnation, entry, door):
                log = self.logs[incarnation]
                assert entry.seq == len(log.entries) + 1, "a log has no holes and nothing twice"
                log.entries.append(entry)
                self._fold(log, entry, door)

    def _fold(self, log: KeptLog, entry: Entry, door: bytes) -> None:
        match entry.kind:
            case Kind.JOIN:
                log.former = [one for one in log.former if one.door != door]
                log.members[entry.sender] = KeptMember(
                    entry.sender, entry.name, entry.plaintext, door, joined_seq=entry.seq
                )
                log.next_member = max(log.next_member, entry.sender + 1)
            case Kind.LEAVE:
                gone = log.members.pop(entry.sender)
                if door:
                    log.former.append(replace(gone, left_seq=entry.seq))
            case Kind.CLOSED:
                log.closed = True
            case Kind.POLICY:
                log.policy = replace(log.policy, access=Access(entry.body.decode()))
            case Kind.TEXT:
                if entry.message_id:
                    digest = digest_of(entry.kind, entry.body)
                    answer = Answer(entry.message_id, 0, entry.seq, entry.time_ms, digest)
                    self._answer(log, entry.sender, answer)

    def _answer(self, log: KeptLog, sender: int, answer: Answer) -> None:
        member = log.members.get(sender)
        if member is not None:
            answers = (*member.answers, answer)[-ANSWERS_KEPT:]
            log.members[sender] = replace(member, mark=answer.message_id, answers=answers)
