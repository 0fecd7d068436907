"""ocm: rooms you can embed and prove.

A server makes rooms, members enter them and talk: encrypted, each message once and in order (TCRP/2), and beside it
in the classic profile. See ``ocm.serve`` and ``ocm.connect``.
"""

from ocm.api import Client, EmbeddedServer, Membership, Reach, connect, serve
from ocm.client.room import Room
from ocm.errors import (
    AddressInUse,
    CertificateFailed,
    ConnectFailed,
    HandshakeFailed,
    JournalFailed,
    LimitExceeded,
    LocalProtocolError,
    OcmError,
    ProtocolError,
    RemoteProtocolError,
    RoomRefused,
    SendRefused,
    ServerUntrusted,
    StateFailed,
    StateLocked,
    TransportClosed,
)
from ocm.protocol.control.packets import Form
from ocm.protocol.entry import Access, Lifetime, Policy, Reason, Refusal
from ocm.protocol.events import (
    Announcement,
    Connection,
    ConnectionChanged,
    Delivery,
    Event,
    Gap,
    LogChanged,
    MemberJoined,
    MemberLeft,
    Message,
    PathChanged,
    PathKind,
    PathState,
    Person,
    PolicyChanged,
    Receipt,
    Removed,
    RoomClosed,
    Slowed,
    StateChanged,
)
from ocm.protocol.limits import Limits
from ocm.protocol.text import isolate, safe_text
from ocm.server.gatekeeper import Authorize, Knock, Verdict
from ocm.server.local import LocalMember
from ocm.server.server import Admits, Status
from ocm.transport.base import Network
from ocm.transport.certificate import Certificate, keep_certificate, load_certificate

__version__ = "0.1.0"

__all__ = [
    "Access",
    "AddressInUse",
    "Admits",
    "Announcement",
    "Authorize",
    "Certificate",
    "CertificateFailed",
    "Client",
    "ConnectFailed",
    "Connection",
    "ConnectionChanged",
    "Delivery",
    "EmbeddedServer",
    "Event",
    "Form",
    "Gap",
    "HandshakeFailed",
    "JournalFailed",
    "Knock",
    "Lifetime",
    "LimitExceeded",
    "Limits",
    "LocalMember",
    "LocalProtocolError",
    "LogChanged",
    "MemberJoined",
    "MemberLeft",
    "Membership",
    "Message",
    "Network",
    "OcmError",
    "PathChanged",
    "PathKind",
    "PathState",
    "Person",
    "Policy",
    "PolicyChanged",
    "ProtocolError",
    "Reach",
    "Reason",
    "Receipt",
    "Refusal",
    "RemoteProtocolError",
    "Removed",
    "Room",
    "RoomClosed",
    "RoomRefused",
    "SendRefused",
    "ServerUntrusted",
    "Slowed",
    "StateChanged",
    "StateFailed",
    "StateLocked",
    "Status",
    "TransportClosed",
    "Verdict",
    "__version__",
    "connect",
    "isolate",
    "keep_certificate",
    "load_certificate",
    "safe_text",
    "serve",
]
