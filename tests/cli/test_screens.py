"""Nothing that a server of TCRP/2, or anybody on it, writes acts on the screen of ``ocm chat``."""

import json
from collections.abc import Sequence

import pytest

from ocm.protocol.entry import Kind
from ocm.protocol.wire.records import CloseCode, Closing, Denied
from tests.cli.hostile import HOSTILE, controls
from tests.cli.liar import Lies, lying
from tests.cli.program import ocm_command, run_ocm, seat

TEXTS = [text.encode(errors="replace").decode() for text in HOSTILE]
"""What can be written in UTF-8 of them."""
LAST = "that was all"


def happenings() -> Sequence[tuple[int, bytes]]:
    """Entries of every kind, known or not, with every hostile text at every place of theirs."""
    told: list[tuple[int, bytes]] = []
    for text in TEXTS:
        told.append((Kind.TEXT, text.encode()))
        for member, kind in enumerate((*Kind, 77)):
            if kind not in {Kind.TEXT, Kind.CLOSED}:
                change = {"member": 100 + member, "name": text, "reason": text, "access": text}
                told.append((kind, json.dumps(change).encode()))
                told.append((kind, text.encode()))
        told.append((Kind.JOIN, json.dumps({"member": 200, "name": text}).encode()))
        told.append((Kind.LEAVE, json.dumps({"member": 200, "name": text, "reason": "left"}).encode()))
    return [*told, (Kind.TEXT, LAST.encode())]


async def test_hostile_names_texts_and_history_are_harmless_lines() -> None:
    lies = Lies(names=TEXTS, past=TEXTS, entries=happenings())
    async with lying(lies) as url, ocm_command(*seat(url, "aiko")) as aiko:
        await aiko.expect(LAST)
        aiko.type("/who", "/status", "/leave")
        status, err = await aiko.finish()
    assert (status, err) == (0, "")
    shown = "\n".join(aiko.seen)
    assert controls(shown.replace("\n", "")) == []
    assert sum(line.startswith("~ ") for line in aiko.seen) == len(TEXTS)
    assert any(line.startswith("! ") for line in aiko.seen)
    assert any(line.startswith("* Here (") for line in aiko.seen)


async def test_programs_get_them_in_one_line_each() -> None:
    lies = Lies(names=TEXTS, past=TEXTS, entries=happenings())
    async with lying(lies) as url, ocm_command(*seat(url, "aiko", "--json")) as aiko:
        await aiko.expect(LAST)
        aiko.type("/who", "/leave")
        assert (await aiko.finish())[0] == 0
    events = [json.loads(line) for line in aiko.seen]
    assert all(line.isprintable() for line in aiko.seen)
    assert [event["text"] for event in events if event.get("history")] == TEXTS


@pytest.mark.parametrize(("code", "text"), [(400, TEXTS[0]), (404, TEXTS[1]), (480, TEXTS[2]), (999, "".join(TEXTS))])
async def test_a_refusal_is_one_harmless_line(code: int, text: str) -> None:
    async with lying(Lies(refusal=Denied(code=code, message=text[:1000]))) as url:
        status, out, err = await run_ocm(*seat(url, "aiko"))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert controls(err.removesuffix("\n")) == []


async def test_the_last_words_of_a_server_do_not_reach_the_screen() -> None:
    text = "".join(TEXTS)
    lies = Lies(names=["bob"], closing=Closing(code=CloseCode.GOING_AWAY, reason=text[:1000]))
    async with lying(lies) as url, ocm_command(*seat(url, "aiko")) as aiko:
        await aiko.expect("* The connection is lost")
        aiko.type("/leave")
        status, err = await aiko.finish()
    assert (status, err) == (0, "")
    assert controls("".join(aiko.seen)) == []
