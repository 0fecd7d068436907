"""ocm: rooms you can embed and prove.

A server makes rooms; members enter them over TCP and talk over UDP, in classic TCRP. See ``ocm.serve`` and
``ocm.connect``.
"""

from ocm.api import Client, EmbeddedServer, Membership, connect, serve
from ocm.client.room import Room
from ocm.errors import (
    AddressInUse,
    ConnectFailed,
    JournalFailed,
    LimitExceeded,
    LocalProtocolError,
    OcmError,
    ProtocolError,
    RemoteProtocolError,
    RoomRefused,
    SendRefused,
    TransportClosed,
)
from ocm.protocol.control.packets import Form
from ocm.protocol.entry import Reason, Refusal
from ocm.protocol.events import (
    Announcement,
    Connection,
    ConnectionChanged,
    Delivery,
    Event,
    Gap,
    MemberJoined,
    MemberLeft,
    Message,
    Person,
    Receipt,
    Removed,
    RoomClosed,
    Slowed,
)
from ocm.protocol.limits import Limits
from ocm.protocol.text import isolate, safe_text
from ocm.server.gatekeeper import Authorize, Knock, Verdict
from ocm.server.local import LocalMember
from ocm.server.server import Admits, Status
from ocm.transport.base import Network

__version__ = "0.1.0"

__all__ = [
    "AddressInUse",
    "Admits",
    "Announcement",
    "Authorize",
    "Client",
    "ConnectFailed",
    "Connection",
    "ConnectionChanged",
    "Delivery",
    "EmbeddedServer",
    "Event",
    "Form",
    "Gap",
    "JournalFailed",
    "Knock",
    "LimitExceeded",
    "Limits",
    "LocalMember",
    "LocalProtocolError",
    "MemberJoined",
    "MemberLeft",
    "Membership",
    "Message",
    "Network",
    "OcmError",
    "Person",
    "ProtocolError",
    "Reason",
    "Receipt",
    "Refusal",
    "RemoteProtocolError",
    "Removed",
    "Room",
    "RoomClosed",
    "RoomRefused",
    "SendRefused",
    "Slowed",
    "Status",
    "TransportClosed",
    "Verdict",
    "__version__",
    "connect",
    "isolate",
    "safe_text",
    "serve",
]
