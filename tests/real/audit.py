"""What members saw, held against what the log says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from tests.real.machines import Line, Program

Log: TypeAlias = Mapping[int, tuple[str, str]]
"""By sequence number: who said what."""


@dataclass(frozen=True, slots=True)
class Found:
    """How much was held against the log."""

    messages: int
    """Texts in the log."""
    receipts: int
    """Receipts of messages that are in the room."""
    deliveries: int
    """Messages that members were shown."""


async def read_log(auditor: Program) -> dict[int, tuple[str, str]]:
    """Return what the server's log holds beyond the auditor's last audit."""
    after = len(auditor.lines)
    auditor.tell("audit")
    line = await auditor.event("log", after=after)
    log: dict[int, tuple[str, str]] = {}
    for seq, name, text in line["entries"]:
        assert seq not in log, f"entry {seq} twice"
        log[seq] = (name, text)
    return log


async def all_shown(members: Mapping[str, Program], log: Log) -> None:
    """Wait until every member was shown the last message of the others."""
    for user, program in members.items():
        await shown(program, max(seq for seq, (author, _) in log.items() if author != user))


async def shown(program: Program, seq: int) -> None:
    """Wait until a member was shown an entry."""
    await program.wait_for(lambda line: bool(line["event"] == "message" and line["seq"] == seq))


def check(members: Mapping[str, Sequence[Line]], log: Log, *, everything: bool = True) -> Found:
    """Hold the lines of members, all of whom have been there from the start, against the log.

    With ``everything`` each author's numbers must be there from 1 without a gap.
    """
    texts = [text for _, text in log.values()]
    assert len(texts) == len(set(texts)), "a message is in the log twice"
    _check_authors(log, everything=everything)
    receipts = deliveries = 0
    for name, lines in members.items():
        for line in lines:
            assert line["event"] not in {"error", "other"} or line.get("what") == "MemberJoined", f"{name}: {line}"
        receipts += _check_receipts(name, lines, log)
        deliveries += _check_view(name, lines, log)
    return Found(len(texts), receipts, deliveries)


def _check_authors(log: Log, *, everything: bool) -> None:
    numbers: dict[str, list[int]] = {}
    for seq in sorted(log):
        prefix, _, number = log[seq][1].rpartition(" ")
        numbers.setdefault(prefix, []).append(int(number))
    for prefix, said in numbers.items():
        assert all(one < other for one, other in pairwise(said)), f"{prefix}: out of order in the log"
        if everything:
            assert said == list(range(1, len(said) + 1)), f"{prefix}: lost, the log has {len(said)} up to {said[-1]}"


def _check_receipts(name: str, lines: Sequence[Line], log: Log) -> int:
    receipts = [line for line in lines if line["event"] == "receipt"]
    for line in receipts:
        assert line["delivery"] == "in_room", f"{name}: {line}"
        assert log.get(line["seq"]) == (name, line["text"]), (
            f"{name} was told of {line}, the log: {log.get(line['seq'])}"
        )
    assert all(one["seq"] < other["seq"] for one, other in pairwise(receipts)), f"{name}: receipts out of order"
    return len(receipts)


def _check_view(name: str, lines: Sequence[Line], log: Log) -> int:
    seen = [line for line in lines if line["event"] == "message"]
    assert all(one["seq"] < other["seq"] for one, other in pairwise(seen)), f"{name} saw messages twice or out of order"
    for line in seen:
        assert log.get(line["seq"]) == (line["name"], line["text"]), f"{name} saw {line}"
    if seen:
        due = {seq for seq, (author, _) in log.items() if author != name and seq >= seen[0]["seq"]}
        missed = due - {line["seq"] for line in seen}
        assert not missed, f"{name} was never shown {sorted(missed)[:10]}"
    return len(seen)
