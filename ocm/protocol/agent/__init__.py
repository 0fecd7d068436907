"""The client's machine of TCRP/2."""

from ocm.protocol.agent.agent import Agent
from ocm.protocol.agent.happenings import AgentEvent, Answered, Ended, EntryRefused, Replaced, Seating, Settled
from ocm.protocol.agent.room import AgentRoom
from ocm.protocol.agent.session import Session

__all__ = [
    "Agent",
    "AgentEvent",
    "AgentRoom",
    "Answered",
    "Ended",
    "EntryRefused",
    "Replaced",
    "Seating",
    "Session",
    "Settled",
]
