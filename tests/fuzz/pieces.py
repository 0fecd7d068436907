"""How a fuzz target's input says how the stream in it arrives."""

from __future__ import annotations

from itertools import cycle


def cut(data: bytes) -> tuple[bytes, list[bytes]]:
    """Three bytes say how to cut the rest: chunks of 1 to 256 bytes, sizes in turn."""
    stream = data[3:]
    chunks: list[bytes] = []
    start = 0
    for byte in cycle(data[:3] or b"\0"):
        if start >= len(stream):
            return stream, chunks
        chunks.append(stream[start : start + byte + 1])
        start += byte + 1
    raise AssertionError("a cycle has no end")
