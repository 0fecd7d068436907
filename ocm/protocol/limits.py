"""What a peer may cost us: every bound of the classic profile, in one frozen place.

The values are those of the threat model and of TCRP/2 section 9. A bound is checked before memory is
spent for what it bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Final

from ocm.errors import LocalProtocolError

DATAGRAM_SIZE_MAX: Final = 4096
"""Bytes of the largest classic datagram, in either direction (``dialects.md``, section 1)."""
ANSWER_WAIT_MAX_S: Final = 60.0
"""How long one answer of a server may make a client wait before it asks again, whatever time the server names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every bound a peer can run into. Sizes are bytes, times are seconds.

    Raises ``LocalProtocolError`` when a value is not above zero.
    """

    payload_size_max: int = 4096
    """Largest payload of a control packet; a header that promises more ends the connection."""
    user_code_points_max: int = 32
    """Longest user name, in code points after folding."""
    room_size_max: int = 255
    """Longest room name: the header gives it one byte."""

    header_timeout_s: float = 5.0
    """A control header is complete this long after its first byte, or the connection ends."""
    body_timeout_s: float = 10.0
    """A whole control packet is complete this long after its first byte, or the connection ends."""
    tls_timeout_s: float = 10.0
    """A TLS handshake is complete this long after its first byte, or the connection ends."""
    hello_timeout_s: float = 10.0
    """A modern client is known this long after the handshake, or the connection ends."""
    handshakes_max: int = 1000
    """TLS handshakes at once; above it the oldest ends."""
    silent_timeout_s: float = 120.0
    """How long a connection may stay open without a byte: people sit at prompts."""
    silent_short_timeout_s: float = 5.0
    """The same for silent connections above ``silent_per_host_max`` or ``silent_max``."""
    silent_per_host_max: int = 8
    """Silent connections of one host that get the long time-out."""
    silent_max: int = 256
    """Silent connections of all hosts that get the long time-out."""
    unseated_max: int = 2000
    """Connections without a seat in a room, in all; at the limit the oldest goes."""
    unseated_per_host_max: int = 16
    """Connections without a seat per IPv4 address or IPv6 /64; not counted on loopback."""
    abandoned_per_host_max: int = 32
    """Connections of one host that ended without a seat, per ``abandoned_window_s``; not on loopback."""
    abandoned_window_s: float = 600.0
    """The window of ``abandoned_per_host_max``."""
    hosts_max: int = 4096
    """Hosts whose behaviour is remembered at once; the one heard of longest ago is forgotten."""
    refusals_max: int = 16
    """Refused requests on one connection before it is closed."""
    failed_joins_max: int = 10
    """Failed joins of one host per ``failed_joins_window_s`` before its answers are delayed."""
    failed_joins_window_s: float = 120.0
    """The window of ``failed_joins_max``."""
    failed_join_delay_s: float = 2.0
    """How much later a host with too many failed joins is answered."""
    reply_pause_s: float = 0.02
    """Least time between two packets to one peer: many read one packet per ``recv`` (section 6)."""
    send_buffer_max: int = 65_536
    """Unsent bytes of one connection above which it is no longer read from."""
    stalled_timeout_s: float = 30.0
    """How long a modern connection may be too full to be written to, before it ends."""

    rooms_max: int = 10_000
    """Rooms of one server."""
    members_per_room_max: int = 1000
    """Members of one room."""
    idle_timeout_s: float = 600.0
    """A member silent for this long is removed, and told."""
    lost_timeout_s: float = 60.0
    """A classic member whose control connection broke and who stays silent for this long is removed."""
    session_timeout_s: float = 60.0
    """A modern client that is silent for this long has no session any more: it would have asked for a sign of life."""
    host_grace_s: float = 60.0
    """How long a modern room's host may be without a connection before the room goes on without it, or closes."""
    detached_timeout_s: float = 86_400.0
    """How long a modern member may be without a connection before it is removed."""
    identity_timeout_s: float = 86_400.0
    """How long a client that has no connection is known."""
    identities_max: int = 100_000
    """Clients that are known; above it the one heard of longest ago is forgotten."""
    rooms_per_session_max: int = 32
    """Rooms that one modern client may be in at a time."""
    requests_max: int = 64
    """Requests of one modern client that may wait for an answer."""
    burst_max: int = 200
    """Messages a member may send at once."""
    rate_per_s: float = 50.0
    """Messages per second a member may send for long."""
    bytes_per_s: int = 262_144
    """Bytes per second a member may send for long: a message above its share counts as several."""
    pending_max: int = 16_384
    """Records of all rooms that wait for the journal; above it messages are dropped and counted."""
    room_log_messages_max: int = 256
    """Entries of one room kept in memory for members that read from the log."""
    room_log_size_max: int = 262_144
    """Bytes of one room's entries kept in memory."""
    room_logs_size_max: int = 268_435_456
    """The same of all rooms together; above it each keeps but a small share, and reads the rest from the journal."""
    room_kept_messages_max: int = 10_000
    """Entries of one room kept on disk, where the journal is on one; the oldest go first."""
    room_kept_s: float = 30 * 86_400.0
    """How long an entry is kept on disk, counting only time in which a server runs."""
    closed_room_kept_s: float = 86_400.0
    """How long the log of a closed room is kept on disk; of the newest ``rooms_max`` closed rooms."""
    unsent_datagrams_max: int = 8192
    """Datagrams that wait for a full socket; above it the oldest are dropped and counted."""
    events_max: int = 1024
    """Events a client keeps for a slow reader; above it they are dropped and a gap is told."""

    send_interval_s: float = field(init=False)
    """Seconds between messages at ``rate_per_s``."""
    burst_s: float = field(init=False)
    """How far a member may be ahead of that rhythm: ``burst_max`` messages at once."""
    message_share: int = field(init=False)
    """Bytes of a message that counts as one."""

    def __post_init__(self) -> None:
        for bound in fields(self):
            if bound.init and getattr(self, bound.name) <= 0:
                raise LocalProtocolError(f"limit {bound.name} must be above 0")
        if self.room_size_max > 255:
            raise LocalProtocolError("limit room_size_max cannot exceed 255: the header gives it one byte")
        set_once: Final = object.__setattr__
        set_once(self, "send_interval_s", 1 / self.rate_per_s)
        set_once(self, "burst_s", (self.burst_max - 1) / self.rate_per_s)
        set_once(self, "message_share", max(1, int(self.bytes_per_s / self.rate_per_s)))
