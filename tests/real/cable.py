"""A bad cable between two network namespaces: ``python -m tests.real.cable NAMESPACE NAMESPACE``.

Makes the device ``cable`` in both and carries IP packets between them, later than they came, and not all of them:
whole TCP and UDP stacks of the kernel meet loss and delay, as on ``tc netem``, which not every kernel has. Lines on
stdin change it: ``loss 0.1``, ``delay 0.025`` (seconds, each way), ``udp off``, ``udp on``, ``cut``, ``heal``. Each
is answered by ``{"event": "done"}``. It ends with its stdin. Linux only, and root.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import random
import selectors
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

DEVICE: Final = "cable"
PACKET_SIZE_MAX: Final = 65_535
_WAITING_MAX: Final = 2000
"""Packets on the way; what comes on top is lost, as in any queue of a router."""
_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_UDP: Final = 17


class Cable:
    """Two ends, what is on the way between them, and how bad it is."""

    def __init__(self, ends: tuple[int, int], *, draw: random.Random) -> None:
        self.loss = 0.0
        self.delay_s = 0.0
        self.carries_udp = True
        self.is_cut = False
        self.carried = 0
        self.lost = 0
        self._other: Mapping[int, int] = {ends[0]: ends[1], ends[1]: ends[0]}
        self._draw = draw
        self._waiting: list[tuple[float, int, int, bytes]] = []

    def take(self, end: int) -> None:
        """Take what came in at one end."""
        while True:
            try:
                packet = os.read(end, PACKET_SIZE_MAX)
            except BlockingIOError:
                return
            blocked = self.is_cut or (not self.carries_udp and _is_udp(packet))
            if blocked or len(self._waiting) >= _WAITING_MAX or self._draw.random() < self.loss:
                self.lost += 1
                continue
            self.carried += 1
            due_s = time.monotonic() + self.delay_s
            heapq.heappush(self._waiting, (due_s, self.carried, self._other[end], packet))

    def deliver(self) -> float | None:
        """Let out what is due; return in how many seconds more is."""
        now_s = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now_s:
            _, _, end, packet = heapq.heappop(self._waiting)
            try:
                os.write(end, packet)
            except OSError:  # the device takes no more, or not any more
                self.lost += 1
        return max(0.0, self._waiting[0][0] - now_s) if self._waiting else None

    def obey(self, line: str) -> None:
        """Become as bad as a line says."""
        match line.split():
            case ["loss", share]:
                self.loss = float(share)
            case ["delay", seconds]:
                self.delay_s = float(seconds)
            case ["udp", ("on" | "off") as how]:
                self.carries_udp = how == "on"
            case [("cut" | "heal") as how]:
                self.is_cut = how == "cut"
            case _:
                raise ValueError(f"no command: {line!r}")


def _is_udp(packet: bytes) -> bool:
    version = packet[0] >> 4
    return packet[9 if version == 4 else 6] == _UDP


def plug_in(namespace: str) -> int:
    """Make the device in a namespace; return what reads and writes its packets."""
    enter_namespace(namespace)
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    return end


def enter_namespace(name: str) -> None:
    """Be in a network namespace from now on. (``os.setns`` came with Python 3.12.)"""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/run/netns/{name}").open("rb") as handle:
        if libc.setns(handle.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the namespace {name}")


def main() -> None:
    """Carry until stdin ends."""
    ends = (plug_in(sys.argv[1]), plug_in(sys.argv[2]))
    cable = Cable(ends, draw=random.Random(1))
    selector = selectors.DefaultSelector()
    for end in ends:
        selector.register(end, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print(json.dumps({"event": "ready"}), flush=True)
    wait_s: float | None = None
    while True:
        for key, _ in selector.select(wait_s):
            if isinstance(key.fileobj, int):
                cable.take(key.fileobj)
                continue
            line = sys.stdin.readline()
            if not line:
                return
            cable.obey(line)
            print(json.dumps({"event": "done", "carried": cable.carried, "lost": cable.lost}), flush=True)
        wait_s = cable.deliver()


if __name__ == "__main__":
    main()
