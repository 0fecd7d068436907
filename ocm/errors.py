"""Every error ocm raises; a test compares this drawing with the classes.

OcmError
    ProtocolError            the rules of TCRP were broken ...
        LocalProtocolError   ... by our caller: fix the code
        RemoteProtocolError  ... by the peer: drop the peer
            LimitExceeded    the peer asked for more than our limits allow
    RoomRefused              the server understood a request to enter a room and said no
    SendRefused              a message was not taken, now or ever
    TransportClosed          the pipe is gone; what was sent may be lost
        ConnectFailed        no pipe could be made: nobody answers there
            HandshakeFailed  ... or TLS could not be set up
                ServerUntrusted  since the server's key is not the pinned one, or nobody vouches for it
        AddressInUse         the port we were to listen on is taken
    CertificateFailed        a server's certificate or its key cannot be used
    JournalFailed            the room log could not be written; nothing of that batch is in it
    StateFailed              what a client remembers could not be read or written
        StateLocked          another process uses it
    SimulationError          a program on a simulated network went wrong in a way that a real one cannot
        NotSimulated         it asked for what leaves virtual time: a thread, a socket, another process
        Stuck                everybody waits for ever, or somebody runs in circles
"""

from __future__ import annotations


class OcmError(Exception):
    """Base of every error ocm raises on purpose."""


class ProtocolError(OcmError):
    """The rules of TCRP were broken."""


class LocalProtocolError(ProtocolError):
    """Our own caller broke the rules; the fix is in the calling code."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules. The text never quotes the peer's bytes."""


class LimitExceeded(RemoteProtocolError):
    """The peer asked for more than a limit allows.

    Attributes:
        what: name of the limit, as in ``Limits`` without its ``_max``.
        asked: what the peer asked for.
        limit: what it may have.
    """

    def __init__(self, what: str, *, asked: int, limit: int) -> None:
        """Name the limit, what was asked for, and what is allowed."""
        super().__init__(f"{what}: asked for {asked if asked < 2**63 else 'over 2**63'}, limit {limit}")
        self.what = what
        self.asked = asked
        self.limit = limit


class RoomRefused(OcmError):
    """The server said no to a request to create or join a room.

    Attributes:
        code: why, a number of ``ocm.Refusal`` where the server is ours; else what it sent, or 400.
        reason: the sentence that came with it. It is the peer's text: escape it before showing it.
    """

    def __init__(self, code: int, reason: str) -> None:
        """Keep the status code and the peer's sentence."""
        super().__init__(f"{reason} ({code})")
        self.code = code
        self.reason = reason


class SendRefused(OcmError):
    """A message was not taken.

    Attributes:
        code: why: ``"too_large"``, ``"not_text"``, ``"closed"``, ``"rate"`` or ``"empty"``.
        retry_after_s: seconds after which the same message may be tried again; None means never.
    """

    def __init__(self, code: str, *, retry_after_s: float | None = None) -> None:
        """Keep the reason and when to try again."""
        again = "" if retry_after_s is None else f"; try again in {retry_after_s:.1f} s"
        super().__init__(f"message refused: {code.replace('_', ' ')}{again}")
        self.code = code
        self.retry_after_s = retry_after_s


class TransportClosed(OcmError):
    """The pipe is gone; what was sent may be lost."""


class ConnectFailed(TransportClosed):
    """No connection could be made to the address."""


class HandshakeFailed(ConnectFailed):
    """TLS could not be set up: the other side speaks none, or not the version, or not our protocol."""


class ServerUntrusted(HandshakeFailed):
    """The server's key is not the pinned one, or nobody vouches for it.

    Attributes:
        fingerprint: what the server showed: SHA-256 of its public key (SubjectPublicKeyInfo), in lowercase hex;
            empty where that cannot be read.
    """

    def __init__(self, message: str, *, fingerprint: str) -> None:
        """Say why, and keep what the server showed."""
        super().__init__(message)
        self.fingerprint = fingerprint


class AddressInUse(TransportClosed):
    """The address we were asked to listen on is taken by another program.

    Attributes:
        port: the port number that is taken.
        kind: ``"TCP"`` or ``"UDP"``.
    """

    def __init__(self, kind: str, port: int) -> None:
        """Name the port and its protocol."""
        super().__init__(f"{kind} port {port} is already in use")
        self.kind = kind
        self.port = port


class CertificateFailed(OcmError):
    """A server's certificate or its key cannot be used. The text quotes neither.

    Attributes:
        path: the file at fault, or None when it is no single file.
    """

    def __init__(self, why: str, *, path: str | None = None) -> None:
        """Say what is wrong, and with which file."""
        super().__init__(why if path is None else f"{path}: {why}")
        self.path = path


class JournalFailed(OcmError):
    """The room log could not be written; nothing of the batch is in it."""


class StateFailed(OcmError):
    """What a client remembers could not be read or written."""


class StateLocked(StateFailed):
    """What a client remembers is in use by another process."""


class SimulationError(OcmError):
    """A program on a simulated network went wrong in a way that a real one cannot; see ``ocm.testing``."""


class NotSimulated(SimulationError):
    """The program asked for what does not exist in virtual time: a thread, a socket, another process.

    Attributes:
        what: what it asked for.
    """

    def __init__(self, what: str, why: str) -> None:
        """Name what was asked for, and why it cannot be had."""
        super().__init__(f"{what} cannot be used on a simulated network: {why}")
        self.what = what


class Stuck(SimulationError):
    """Nothing is due and everybody waits for ever, or the same is done again and again while no time passes."""
