"""Datagrams in batches by ``recvmmsg`` and ``sendmmsg`` (Linux), the data plane of the server.

Both calls are reached through cffi in ABI mode, so nothing is compiled. Everything the kernel reads or
writes lies in arrays made once; Python touches them through memoryviews of machine words, which costs a
third of cffi's own field access (``performance.md``, point 1).
"""

from __future__ import annotations

import asyncio
import errno
import operator
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from cffi import FFI

from ocm.protocol.address import V4_SIZE, V6_SIZE, Address
from ocm.transport.base import Batch, Group, PortCounters
from ocm.transport.line import BATCH_MAX, ROUNDS_MAX, SLOT_SIZE, SLOTS_MAX, LentSlot, LinePort
from ocm.transport.pktinfo import PacketInfo
from ocm.transport.sockaddr import fit, from_sockaddr

CData = Any  # cffi builds these types from C text at import: there is nothing static to name

FULL: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ENOMEM})
"""The system has no room now; the same datagram may go later."""

ffi: Final[Any] = FFI()
ffi.cdef("""
    struct iovec { void *iov_base; size_t iov_len; };
    struct msghdr {
        void *msg_name; uint32_t msg_namelen; struct iovec *msg_iov; size_t msg_iovlen;
        void *msg_control; size_t msg_controllen; int msg_flags;
    };
    struct mmsghdr { struct msghdr msg_hdr; unsigned int msg_len; };
    struct cmsghdr { size_t cmsg_len; int cmsg_level; int cmsg_type; };
    int recvmmsg(int fd, struct mmsghdr *headers, unsigned int count, int flags, void *timeout);
    int sendmmsg(int fd, struct mmsghdr *headers, unsigned int count, int flags);
""")

_WORD: Final[int] = ffi.sizeof("size_t")
_HEADER_WORDS: Final[int] = ffi.sizeof("struct mmsghdr") // _WORD
_NAME_WORD: Final[int] = ffi.offsetof("struct msghdr", "msg_name") // _WORD
_CONTROL_WORD: Final[int] = ffi.offsetof("struct msghdr", "msg_control") // _WORD
_CONTROL_SIZE: Final[int] = ffi.sizeof("struct cmsghdr")
_LENGTH: Final[int] = ffi.offsetof("struct mmsghdr", "msg_len") // 4
_NAME_FORMATS: Final[dict[int, str]] = {socket.AF_INET: "2x6s8x", socket.AF_INET6: "2x26s"}
"""``sockaddr_in`` and ``sockaddr_in6``, for ``struct``: what our addresses leave out of them."""
_PAYLOAD_MAX: Final = 65536
"""More than any datagram holds: what is longer is cut to this, and the system refuses it."""
_DONT_WAIT: Final = socket.MSG_DONTWAIT


class Calls(Protocol):
    """The two system calls; a test hands in others. They return -1 and set ``ffi.errno`` on failure."""

    def recvmmsg(self, fd: int, headers: CData, count: int, flags: int, timeout: CData, /) -> int:
        """Receive up to ``count`` datagrams."""
        ...

    def sendmmsg(self, fd: int, headers: CData, count: int, flags: int, /) -> int:
        """Send up to ``count`` datagrams."""
        ...


def system_calls() -> Calls | None:
    """Return the system's calls, or None where it does not have them."""
    if sys.platform != "linux":
        return None
    calls: Any = ffi.dlopen(None)
    return calls if hasattr(calls, "recvmmsg") and hasattr(calls, "sendmmsg") else None


class MmsgPort(LinePort[Address]):
    """A datagram port on a bound, non-blocking UDP socket, which it owns from now on."""

    def __init__(
        self,
        sock: socket.socket,
        on_batch: Callable[[Batch], None],
        *,
        size_max: int,
        unsent_max: int,
        calls: Calls,
        info: PacketInfo | None = None,
    ) -> None:
        """Start receiving on the running loop. With ``info`` the socket was asked to say where datagrams come to."""
        super().__init__(from_sockaddr(sock.getsockname()), unsent_max=unsent_max)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._sendmmsg = calls.sendmmsg
        self._fd = sock.fileno()
        self.family = int(sock.family)
        self.info = info
        self._outbox = self.rows(SLOTS_MAX, SLOT_SIZE)
        self._slot_ends: list[tuple[memoryview, memoryview | None]] = []
        self._draining = self.rows(BATCH_MAX, 0)
        self.shared = _SharedPayload()
        self._read = _make_reader(self, on_batch, size_max, calls.recvmmsg)
        self._loop.add_reader(self._fd, self._read)

    def group(self, addresses: Sequence[Address]) -> Group:
        """Prebuild a group of addresses: one call sends to all of them."""
        self._check_open()
        return _MmsgGroup(self, addresses)

    def fit(self, address: Address) -> Address | None:
        """Return the address as this socket's family spells it."""
        return fit(address, self.family)

    def rows(self, count: int, size: int) -> _Rows:
        """Make arrays for datagrams of up to ``size`` bytes."""
        return _Rows(count, size, self.family, self.info)

    def fileno(self) -> int:
        """Return the socket's number; -1 once closed."""
        return self._fd

    def send_headers(self, headers: CData, count: int) -> int:
        """Send the ``count`` (1 or more) datagrams of ``headers``; return how many are settled, sent or refused.

        Less than ``count`` means that the system is full: the rest has to wait.
        """
        settled = 0
        while True:
            taken = self._sendmmsg(self._fd, headers + settled if settled else headers, count - settled, _DONT_WAIT)
            if taken > 0:  # perhaps fewer than asked: then the next call says why
                settled += taken
                self.counters.sent += taken
            elif (error := ffi.errno) in FULL:
                return settled
            elif error != errno.EINTR:  # this one is refused; those behind it are not
                settled += 1
                self.counters.dropped += 1
            if settled == count:
                return settled

    def wait_all(self, payload: bytes, destinations: Sequence[Address]) -> None:
        """Let the same bytes wait for several destinations."""
        self._check_open()
        for destination in destinations:
            self._wait(payload, destination)

    def _new_slot(self, index: int) -> LentSlot:
        self._slot_ends.append(self._outbox.ends(index))
        return LentSlot(self._outbox.buffer(index))

    def _send_slots(self, lent: int) -> None:
        """Send the filled slots; each run of them in one call."""
        rows, start = self._outbox, 0
        sizes, peer_size, usual = rows.vectors, rows.peer_size, rows.address_size
        for index, (slot, (peer, own)) in enumerate(zip(self._slots[:lent], self._slot_ends, strict=False)):
            if slot.size and len(slot.to) == usual:
                peer[:] = slot.to[:peer_size]
                if own is not None:
                    own[:] = slot.to[peer_size:]
                sizes[2 * index + 1] = slot.size
            elif not slot.size or not rows.address(index, slot.to, slot.size):
                self._send_run(start, index)
                start = index + 1
                if slot.size:  # and so its address cannot be reached from here
                    self.counters.dropped += 1
        self._send_run(start, lent)

    def _send_run(self, start: int, end: int) -> None:
        settled = start
        if start < end and not self.held:
            headers = self._outbox.headers
            settled += self.send_headers(headers + start if start else headers, end - start)
        for slot in self._slots[settled:end]:
            destination = self.fit(slot.to)
            assert destination is not None, "a run has only slots whose address fits"
            self._wait(bytes(slot.view[: slot.size]), destination)

    def _drain(self) -> None:
        for _ in range(ROUNDS_MAX):
            if not (count := min(len(self._line), BATCH_MAX)):
                break
            for index in range(count):
                self._draining.put(index, *self._line[index])
            settled = self.send_headers(self._draining.headers, count)
            for _ in range(settled):
                self._line.popleft()
            if settled < count:
                return
        self._release_if_empty()

    def _watch_writable(self, wanted: bool) -> None:
        if wanted:
            self._loop.add_writer(self._fd, self._drain)
        else:
            self._loop.remove_writer(self._fd)

    def _close_pipe(self) -> None:
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._fd = -1
        self._sock.close()


class _MmsgGroup:
    """Addresses with a prebuilt header each; all headers point at the port's one shared payload."""

    __slots__ = ("_addresses", "_count", "_headers", "_port", "_positions", "_rows", "_unreachable", "_words")

    def __init__(self, port: MmsgPort, addresses: Sequence[Address]) -> None:
        fitted = [port.fit(address) for address in addresses]
        self._addresses = [address for address in fitted if address is not None]
        self._count = len(self._addresses)
        self._unreachable = len(fitted) - self._count
        places = iter(range(self._count))
        self._positions = [-1 if address is None else next(places) for address in fitted]
        self._port = port
        self._rows = port.rows(self._count, 0)
        for position, address in enumerate(self._addresses):
            self._rows.share(position, address, port.shared.pointer)
        self._headers = self._rows.headers
        self._words = self._rows.words

    def send(self, payload: bytes, skip: int | None = None) -> None:
        """Send ``payload`` to all but the one at index ``skip``, in one call if the system takes it."""
        port = self._port
        position = -1 if skip is None else self._positions[skip]
        if port.held:  # or closed
            port.wait_all(payload, self._without(position))
        if self._unreachable:
            port.counters.dropped += self._unreachable - (skip is not None and position < 0)
        if port.held:
            return
        port.shared.fill(payload)
        if position < 0:
            wanted = self._count
            settled = port.send_headers(self._headers, wanted) if wanted else 0
        else:  # the last address takes the place of the skipped one, so that the rest is one row
            wanted = self._count - 1
            words, place, last = self._words, position * _HEADER_WORDS, wanted * _HEADER_WORDS
            name, control = words[place + _NAME_WORD], words[place + _CONTROL_WORD]
            words[place + _NAME_WORD], words[place + _CONTROL_WORD] = (
                words[last + _NAME_WORD],
                words[last + _CONTROL_WORD],
            )
            try:
                settled = port.send_headers(self._headers, wanted) if wanted else 0
            finally:
                words[place + _NAME_WORD], words[place + _CONTROL_WORD] = name, control
        if settled < wanted:
            port.wait_all(payload, self._without(position)[settled:])

    def _without(self, position: int) -> list[Address]:
        """Return the addresses in the order they are sent to."""
        addresses = self._addresses.copy()
        if position >= 0:
            last = addresses.pop()
            addresses[position : position + 1] = [last] if position < len(addresses) else []
        return addresses


class _SharedPayload:
    """The one buffer all groups of a port send from.

    Copying 100 bytes into it takes a third of the time of making cffi point at them.
    """

    def __init__(self) -> None:
        self._buffer = ffi.new("char[]", _PAYLOAD_MAX)
        self._vector = ffi.new("struct iovec *")
        self._vector.iov_base = self._buffer
        self.pointer = self._vector
        self._bytes = _view(self._buffer, "B")
        self._words = _view(self._vector, "N")

    def fill(self, payload: bytes) -> None:
        """Make ``payload`` what is sent next."""
        size = len(payload)
        if size > _PAYLOAD_MAX:
            size, payload = _PAYLOAD_MAX, payload[:_PAYLOAD_MAX]
        self._bytes[:size] = payload
        self._words[1] = size


class _Rows:
    """Arrays for ``count`` datagrams: a header, a name, a vector and a buffer of ``size`` for each.

    With ``info`` each has a control message, too, that says at which of our addresses it arrives or leaves.
    """

    def __init__(self, count: int, size: int, family: int, info: PacketInfo | None) -> None:
        self._stride = size
        self._name_size = struct.calcsize("=" + _NAME_FORMATS[family])
        self.peer_size = V6_SIZE if family == socket.AF_INET6 else V4_SIZE
        self.address_size = self.peer_size + (0 if info is None else info.ip_size)
        """Bytes of an address that goes into a row as it is."""
        self._family = family
        self._names = ffi.new("char[]", max(count, 1) * self._name_size)
        self._vectors = ffi.new("struct iovec[]", max(count, 1))
        self._buffers = ffi.new("char[]", max(count * size, 1))
        self.headers = ffi.new("struct mmsghdr[]", max(count, 1))
        self.words = _view(self.headers, "N")
        self.lengths = _view(self.headers, "I")[_LENGTH :: _HEADER_WORDS * _WORD // 4]
        self.names = _view(self._names, "B")
        self.ports = _view(self._names, "H")[1 :: self._name_size // 2]
        self.buffers = ffi.buffer(self._buffers)
        self.vectors = _view(self._vectors, "N")
        for index in range(count):
            header = self.headers[index].msg_hdr
            header.msg_name = self._names + index * self._name_size
            header.msg_namelen = self._name_size
            header.msg_iov = self._vectors + index
            header.msg_iovlen = 1
            self._vectors[index].iov_base = self._buffers + index * size
            self._vectors[index].iov_len = size
            start = index * self._name_size
            self.names[start : start + 2] = struct.pack("=H", family)
        self._info = info
        self.controls: CData = b"" if info is None else self._add_controls(count, info)

    def _add_controls(self, count: int, info: PacketInfo) -> CData:
        head = struct.pack("@Nii", _CONTROL_SIZE + info.size, info.level, info.type)
        space = _control_space(info)
        self._controls = ffi.new("char[]", head.ljust(space, b"\0") * count)
        start = int(ffi.cast("size_t", self._controls))
        for index in range(count):
            word = index * _HEADER_WORDS + _CONTROL_WORD
            self.words[word], self.words[word + 1] = start + index * space, space
        return _view(self._controls, "B")

    def buffer(self, index: int) -> memoryview:
        """Return buffer number ``index``."""
        return memoryview(self.buffers)[index * self._stride : (index + 1) * self._stride]

    def ends(self, index: int) -> tuple[memoryview, memoryview | None]:
        """Return where the two ends of the path of row ``index`` are: the peer's, and ours where rows have it."""
        own = None if self._info is None else memoryview(self.controls)[self._own_at(index, self._info)]
        return memoryview(self.names)[self._peer_at(index)], own

    def _peer_at(self, index: int) -> slice:
        start = index * self._name_size + 2
        return slice(start, start + self.peer_size)

    def _own_at(self, index: int, info: PacketInfo) -> slice:
        start = index * _control_space(info) + _CONTROL_SIZE + info.start
        return slice(start, start + info.ip_size)

    def address(self, index: int, to: Address, size: int) -> bool:
        """Say where buffer number ``index`` goes and how much of it; False when that cannot be reached."""
        if len(to) != self.address_size:
            fitted = fit(to, self._family)
            if fitted is None:
                return False
            to = fitted
        self.names[self._peer_at(index)] = to[: self.peer_size]
        if self._info is not None:
            self.controls[self._own_at(index, self._info)] = to[self.peer_size :] or self._info.any_ip(to)
        self.vectors[2 * index + 1] = size
        return True

    def put(self, index: int, payload: bytes, destination: Address) -> None:
        """Make row ``index`` send ``payload``, which the caller keeps alive until it is sent."""
        self.address(index, destination, len(payload))
        self.vectors[2 * index] = int(ffi.cast("size_t", ffi.from_buffer(payload)))

    def share(self, index: int, destination: Address, vector: CData) -> None:
        """Make row ``index`` send what ``vector`` points at."""
        self.address(index, destination, 0)
        self.headers[index].msg_hdr.msg_iov = vector


def _control_space(info: PacketInfo) -> int:
    """Return the bytes that a control message takes, with its head and what it is filled up with."""
    return -(-(_CONTROL_SIZE + info.size) // _WORD) * _WORD


def _view(array: CData, code: str) -> CData:  # a memoryview; its stubs do not know code "N"
    """Look at a C array as numbers of a ``struct`` code."""
    view: CData = memoryview(ffi.buffer(array))
    return view.cast("B").cast(code)


def _make_reader(
    port: MmsgPort,
    on_batch: Callable[[Batch], None],
    size_max: int,
    recvmmsg: Callable[[int, CData, int, int, CData], int],
) -> Callable[[], None]:
    """Build what the loop calls when the socket is readable: a closure, as it is the hot path."""
    stride = size_max + 1  # so that a longer datagram shows in its length, without MSG_TRUNC
    rows = port.rows(BATCH_MAX, stride)
    headers, buffers, names, controls, null = rows.headers, rows.buffers, rows.names, rows.controls, ffi.NULL
    starts = range(0, BATCH_MAX * stride, stride)
    name = _NAME_FORMATS[port.family]
    unpack_names = [struct.Struct("=" + name * n).unpack_from for n in range(BATCH_MAX + 1)]
    own = "" if port.info is None else _own_format(port.info)
    unpack_own = [struct.Struct("=" + own * n).unpack_from for n in range(BATCH_MAX + 1)]
    counters, fd = port.counters, port.fileno()

    def read() -> None:
        for _ in range(ROUNDS_MAX):
            count = recvmmsg(fd, headers, BATCH_MAX, _DONT_WAIT, null)
            if count <= 0:  # nothing left; or an error that ICMP left, which is gone now
                return
            lengths = rows.lengths[:count].tolist()
            payloads = [buffers[at : at + size] for at, size in zip(starts, lengths, strict=False)]
            senders = unpack_names[count](names)
            if own:
                senders = tuple(map(operator.add, senders, unpack_own[count](controls)))
            batch = list(zip(payloads, senders, strict=True))
            if max(lengths) > size_max or 0 in rows.ports[:count].tolist():
                batch = _without_bad(batch, size_max, counters)
            counters.received += len(batch)
            if batch:
                on_batch(batch)
            if count < BATCH_MAX or port.closed:
                return

    return read


def _own_format(info: PacketInfo) -> str:
    """Return the format of a control message for ``struct``: what follows an address."""
    start = _CONTROL_SIZE + info.start
    return f"{start}x{info.ip_size}s{_control_space(info) - start - info.ip_size}x"


def _without_bad(batch: Batch, size_max: int, counters: PortCounters) -> list[tuple[bytes, Address]]:
    """Drop and count what is too long or comes from port 0."""
    good: list[tuple[bytes, Address]] = []
    for payload, address in batch:
        if len(payload) > size_max:
            counters.oversized += 1
        elif address.startswith(b"\0\0"):
            counters.from_port_0 += 1
        else:
            good.append((payload, address))
    return good
