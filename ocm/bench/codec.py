"""What one chat datagram costs to read, write and refuse: ``python -m ocm.bench.codec``.

Compares the codecs derived from the declaration with ``construct`` itself and with slices written by hand, side by
side; prints, as JSON, microseconds of medians and their ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Final

from ocm.protocol.address import make_address
from ocm.protocol.control.packets import Form
from ocm.protocol.limits import Limits
from ocm.protocol.link.classic import ClassicDoor, ClassicLink
from ocm.protocol.room import Room
from ocm.protocol.wire.classic import DATAGRAM, read_datagram, write_datagram

_ROOM: Final = b"room-7"
_TOKEN: Final = b"0123456789abcdef" * 4
_TEXT: Final = b"m" * 100
_BATCH: Final = 64


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    print(json.dumps(measure(parser.parse_args().rounds)))


def measure(rounds: int) -> dict[str, float]:
    """Take turns; return microseconds of the medians, and ratios of them."""
    datagram = write_datagram(_ROOM, _TOKEN, _TEXT)
    values = dict(zip(DATAGRAM.names, DATAGRAM.parse(datagram), strict=True))
    declared = DATAGRAM.struct
    door, good, junk = _door()
    work: dict[str, tuple[Callable[[], object], int]] = {
        "read": (lambda: read_datagram(datagram), 5000),
        "read_slices": (lambda: _read_slices(datagram), 5000),
        "read_construct": (lambda: declared.parse(datagram), 200),
        "write": (lambda: write_datagram(_ROOM, _TOKEN, _TEXT), 5000),
        "write_slices": (lambda: _write_slices(_ROOM, _TOKEN, _TEXT), 5000),
        "write_construct": (lambda: declared.build(values), 200),
        "take_good": (lambda: door.receive_batch(good, now_s=0.0), 100),
        "refuse_junk": (lambda: door.receive_batch(junk, now_s=0.0), 100),
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, (action, count) in work.items():
            times[name].append(_time_us(action, count))
    figures = {name: statistics.median(samples) for name, samples in times.items()}
    for name in ("take_good", "refuse_junk"):
        figures[name] /= _BATCH
    ratios = {
        "read_times_faster_than_construct": figures["read_construct"] / figures["read"],
        "write_times_faster_than_construct": figures["write_construct"] / figures["write"],
        "read_times_slower_than_slices": figures["read"] / figures["read_slices"],
        "write_times_slower_than_slices": figures["write"] / figures["write_slices"],
        "junk_against_good": figures["refuse_junk"] / figures["take_good"],
    }
    return {f"{name}_us": round(us, 3) for name, us in figures.items()} | {k: round(v, 2) for k, v in ratios.items()}


def _door() -> tuple[ClassicDoor, list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
    """Return a door with one member, a batch it lets in, and a batch of junk."""
    address = make_address("127.0.0.1", 9)
    link = ClassicLink(Form.OCM, room=_ROOM.decode(), user="aiko", token=_TOKEN, address=address)
    member = Room(_ROOM.decode(), 1, Limits()).admit("aiko", plaintext=True, now_s=0.0)
    assert not isinstance(member, int)
    link.member = member
    door = ClassicDoor()
    door.links[_TOKEN] = link
    good = write_datagram(_ROOM, _TOKEN, _TEXT)
    junk = write_datagram(_ROOM, _TOKEN[::-1], _TEXT)
    return door, [(good, address)] * _BATCH, [(junk, address)] * _BATCH


def _read_slices(data: bytes) -> tuple[bytes, bytes, bytes] | None:
    if len(data) < 2:
        return None
    at = 2 + data[0]
    end = at + data[1]
    if end > len(data):
        return None
    return data[2:at], data[at:end], data[end:]


def _write_slices(room: bytes, token: bytes, text: bytes) -> bytes:
    return bytes((len(room), len(token))) + room + token + text


def _time_us(action: Callable[[], object], count: int) -> float:
    started_s = time.perf_counter()
    for _ in range(count):
        action()
    return (time.perf_counter() - started_s) / count * 1e6


if __name__ == "__main__":
    main()
