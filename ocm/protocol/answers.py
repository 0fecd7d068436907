"""What modern members are told of their rooms: where they sit, who is there, what was said before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ocm.errors import JournalFailed
from ocm.protocol.entry import Entry, Refusal
from ocm.protocol.link.log import HISTORY_FLAG, PAGE, encode_tail
from ocm.protocol.link.modern import MESSAGE, ModernLink
from ocm.protocol.link.modern_session import Entering
from ocm.protocol.room import Room
from ocm.protocol.wire.classic import Stage
from ocm.protocol.wire.records import (
    DETACHED_FLAG,
    FRAMES_RECORD_SIZE_MAX,
    PLAINTEXT_FLAG,
    Denied,
    History,
    MemberPage,
    MemberRow,
    Op,
    Pages,
    Seated,
    write_frames_record,
    write_record,
)

MEMBERS_PAGE: Final = 200
"""Members told in one record."""
HISTORY_SIZE_MAX: Final = 256 * 1024
"""Bytes of entries told for one HISTORY."""
WAIT_S: Final = 1.0
"""When to ask again for what the server cannot do just now."""


def seated(request: Entering, link: ModernLink, *, handle: int, start: int, resumed: bool, is_short: bool) -> Seated:
    """Tell a member where it is. One that is gone learns nothing of who is there now.

    Args:
        request: what it asked.
        link: its door.
        handle: what its session calls the room.
        start: the entry behind which it goes on.
        resumed: whether it was a member before.
        is_short: whether it has to ask MEMBERS who is there.
    """
    log = link.log
    assert log is not None, "a member has a log"
    room = None if link.member is None else link.member.room
    policy = link.policy if room is None else room.policy
    rows, more = _page(room, 0, rows_max=0 if is_short else MEMBERS_PAGE)
    return Seated(
        id=request.id,
        member=link.member_id,
        handle=handle,
        log=link.log_id.hex(),
        head=link.head,
        oldest=log.oldest,
        start=start,
        mark=link.mark,
        resumed=resumed,
        access=policy.access.value,
        lifetime=policy.lifetime.value,
        durable=policy.durable,
        host=0 if room is None else room.host_id,
        members=rows,
        more=more,
    )


def tell_members(link: ModernLink, number: int, after: int) -> Iterator[bytes]:
    """Answer MEMBERS. Who is gone by then is told of nobody."""
    rows, more = _page(None if link.member is None else link.member.room, after, rows_max=MEMBERS_PAGE)
    yield write_record(Op.MEMBERS, Stage.COMPLETE, MemberPage(id=number, members=rows, more=more))


def read_back(link: ModernLink, request: History) -> Iterator[bytes]:
    """Answer HISTORY, a record at a time. Who is gone meanwhile reads no further than it may."""
    log = link.log
    assert log is not None, "a member has a log"
    prefix = MESSAGE + request.handle.to_bytes(4, "big")
    frames = b""
    size = count = 0
    try:
        for entry in _entries(link, request):
            frame = prefix + encode_tail(entry, flags=HISTORY_FLAG)
            size += len(frame)
            if count and size > HISTORY_SIZE_MAX:
                break
            if frames and len(frames) + len(frame) > FRAMES_RECORD_SIZE_MAX:
                yield write_frames_record(frames)
                frames = b""
            frames += frame
            count += 1
    except JournalFailed:
        message = "the log cannot be read just now; try again later"
        denied = Denied(id=request.id, code=int(Refusal.UNAVAILABLE), message=message, wait_ms=round(WAIT_S * 1000))
        yield write_record(Op.HISTORY, Stage.STATUS, denied)
        return
    if frames:
        yield write_frames_record(frames)
    pages = Pages(id=request.id, handle=request.handle, count=count, oldest=log.oldest, head=link.head)
    yield write_record(Op.HISTORY, Stage.COMPLETE, pages)


def _entries(link: ModernLink, request: History) -> Iterator[Entry]:
    """Give the entries that HISTORY asks for, a page at a time."""
    log = link.log
    assert log is not None, "a member has a log"
    at, left = request.first, request.count
    while left and (page := log.entries(at, min(left, PAGE))):
        for entry in page:
            if entry.seq > link.head:
                return
            yield entry
        at, left = page[-1].seq + 1, left - len(page)


def _page(room: Room | None, after: int, *, rows_max: int) -> tuple[list[MemberRow], bool]:
    """Return members behind the one with the id ``after``, and whether there are more."""
    rows: list[MemberRow] = []
    for member in () if room is None else room.members.values():  # ids rise in the order of joining
        if member.id <= after:
            continue
        if len(rows) == rows_max:
            return rows, True
        flags = PLAINTEXT_FLAG * member.plaintext | DETACHED_FLAG * (member.lost_s is not None)
        rows.append(MemberRow(member.id, member.name, flags))
    return rows, False
