"""What a server needs of the machine: its addresses, enough files, a directory of its own, a log."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import socket
import struct
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Final

import ocm
from ocm.cli.faults import CommandFailed
from ocm.cli.words import Words
from ocm.protocol.text import safe_text

_ELSEWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))  # RFC 5737, RFC 3849
_SIOCGIFADDR: Final = 0x8915
_IF_INET6: Final = Path("/proc/net/if_inet6")
_LINES_PER_S: Final = 10
_SPARE_FILES: Final = 32


def machine_addresses() -> Sequence[str]:
    """Return the addresses under which others can reach this machine, the likeliest first. Sends nothing."""
    found = [*_routed(), *(_of_interfaces() if sys.platform == "linux" else _of_host_name())]
    return [address for address in dict.fromkeys(found) if _is_reachable(address)]


def _routed() -> Iterator[str]:
    """Ask the system from which address it would speak to the rest of the world."""
    for family, elsewhere in _ELSEWHERE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((elsewhere, 9))
            yield sock.getsockname()[0]


def _of_interfaces() -> Iterator[str]:
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without IPv4
                answer = fcntl.ioctl(sock, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                yield socket.inet_ntoa(answer[20:24])
    with contextlib.suppress(OSError):
        for row in _IF_INET6.read_text(encoding="ascii").split("\n"):
            if row:
                yield str(ipaddress.IPv6Address(bytes.fromhex(row.split()[0])))


def _of_host_name() -> Iterator[str]:
    with contextlib.suppress(OSError):
        for *_, address in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_DGRAM):
            yield str(address[0])


def _is_reachable(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    link_local_v6 = ip.version == 6 and ip.is_link_local  # would need the name of the other machine's interface
    return not (ip.is_loopback or ip.is_unspecified or link_local_v6)


def raise_file_limit(words: Words) -> str | None:
    """Let this process open as many files as it may; return what to say where that failed."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return None
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        return words("serve.file_limit", limit=soft, members=max(0, soft - _SPARE_FILES), detail=error)
    return None


def data_home() -> Path:
    """Return this user's folder for what ocm keeps: under ``$XDG_DATA_HOME``, else ``~/.local/share`` (XDG 0.8)."""
    named = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".local" / "share") / "ocm"


def user_certificate(words: Words) -> ocm.Certificate:
    """Return the certificate of this user's servers, made if need be. Raises ``CertificateFailed``, ``CommandFailed``.

    Two servers that start at once wait for each other: they show one key.
    """
    import fcntl

    folder = data_home()
    with _lock_file(folder, words) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return ocm.keep_certificate(folder, now_s=time.time())


@contextlib.contextmanager
def own_directory(path: Path | None, words: Words) -> Generator[None]:
    """Hold a directory that no other server may use meanwhile. Raises ``CommandFailed``."""
    if path is None:
        yield
        return
    import fcntl

    with _lock_file(path, words) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandFailed(words("serve.data_dir_taken", path=path)) from None
        except OSError as error:
            raise CommandFailed(words("serve.data_dir_bad", path=path, detail=error.strerror)) from None
        yield


@contextlib.contextmanager
def _lock_file(folder: Path, words: Words) -> Generator[int]:
    """Open the file on which those who share a folder hold locks. Raises ``CommandFailed``."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CommandFailed(words("serve.data_dir_bad", path=folder, detail=error.strerror)) from None
    try:
        yield lock
    finally:
        os.close(lock)


def start_logging(verbose: int) -> None:
    """Log to stderr: warnings, with ``verbose`` 1 what happens, with 2 everything."""
    handler = logging.StreamHandler()
    handler.setFormatter(_SafeFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(_Calm())
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, handlers=[handler], force=True)


class _SafeFormatter(logging.Formatter):
    """Lets nothing through that could act on a screen. Only a traceback has more than one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return safe_text(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        return safe_text(super().format(record), newlines=True)


class _Calm(logging.Filter):
    """Lets a few lines per second through for one kind of event, and drops the rest."""

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._seen: dict[tuple[str, object], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if int(record.created) != self._second:
            self._second = int(record.created)
            self._seen.clear()
        kind = (record.name, record.msg)
        self._seen[kind] = self._seen.get(kind, 0) + 1
        return self._seen[kind] <= _LINES_PER_S
