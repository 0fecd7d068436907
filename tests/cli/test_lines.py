"""Lines of stdin."""

import os
import tempfile
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from ocm.cli.lines import LINE_SIZE_MAX, Framer, Line, Stdin, Unreadable

pieces = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\n", b"\r\n", b"\r", b"\xff", "あ\u2028\x85".encode(), b"x" * LINE_SIZE_MAX, b"y" * 3000]),
)


def frame(chunks: Sequence[bytes]) -> list[Line]:
    framer = Framer()
    return [line for chunk in chunks for line in framer.feed(chunk)] + framer.end()


@given(st.lists(pieces), st.data())
def test_lines_are_the_same_however_the_stream_is_cut(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert frame(chunks) == frame([stream]) == frame([bytes([byte]) for byte in stream])


def test_only_a_line_feed_ends_a_line() -> None:
    text = "a\rb\x0bc\x0cd\x1ce\x85f\u2028g"
    assert frame([f"{text}\r\nlast".encode()]) == [text, "last"]
    assert frame([b"one\n\n"]) == ["one", ""]
    assert frame([]) == []


def test_what_cannot_be_a_message_is_named_and_the_next_line_is_whole() -> None:
    assert frame([b"\xff\n", b"x" * (LINE_SIZE_MAX + 1), b"\nnext"]) == [
        Unreadable.NOT_TEXT,
        Unreadable.TOO_LARGE,
        "next",
    ]
    assert frame([b"x" * LINE_SIZE_MAX]) == ["x" * LINE_SIZE_MAX]
    assert frame([b"x" * LINE_SIZE_MAX + b"x"]) == [Unreadable.TOO_LARGE]


def test_an_endless_line_is_not_kept() -> None:
    framer = Framer()
    for _ in range(1000):
        assert framer.feed(bytes(65_536)) == []
    assert len(framer._kept) <= LINE_SIZE_MAX


async def read_all(fd: int) -> list[Line]:
    stdin = Stdin(fd)
    lines: list[Line] = []
    while (line := await stdin.line()) is not None:
        lines.append(line)
    assert await stdin.line() is None
    return lines


async def test_regular_files_pipes_directories_and_the_null_device_are_read_to_their_end() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"one\ntwo")
        file.seek(0)
        assert await read_all(file.fileno()) == ["one", "two"]
    for path in (os.devnull, "/"):
        fd = os.open(path, os.O_RDONLY)
        try:
            assert await read_all(fd) == []
        finally:
            os.close(fd)
    reader, writer = os.pipe()
    os.write(writer, b"one\ntw")
    os.close(writer)
    try:
        assert await read_all(reader) == ["one", "tw"]
    finally:
        os.close(reader)


async def test_a_pipe_without_words_in_it_leaves_the_loop_free_and_is_not_made_non_blocking() -> None:
    import asyncio

    reader, writer = os.pipe()
    stdin = Stdin(reader)
    waiting = asyncio.create_task(stdin.line())
    await asyncio.sleep(0)
    os.write(writer, b"late\n")
    assert await waiting == "late"
    assert os.get_blocking(reader)
    os.close(writer)
    os.close(reader)
