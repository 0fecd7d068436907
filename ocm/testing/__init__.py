"""Programs tested on a bad network, from a seed and in virtual time.

``Network`` runs real servers and clients; ``Exchange`` drives pure machines, a hundred times as fast. Both lose,
double, delay and cut as a ``LinkModel`` says. Installing ocm gives pytest the fixture ``network``.
"""

from ocm.errors import NotSimulated, SimulationError, Stuck
from ocm.testing.exchange import Exchange, Machine
from ocm.testing.network import Network
from ocm.testing.virtual import VirtualLoop
from ocm.transport.link_model import Carrier, Conditions, Direction, Fate, LinkModel, Outcome
from ocm.transport.sim import SimNetwork
from ocm.transport.sim_stream import StreamTimes
from ocm.transport.timeline import Happening, Timeline

__all__ = [
    "Carrier",
    "Conditions",
    "Direction",
    "Exchange",
    "Fate",
    "Happening",
    "LinkModel",
    "Machine",
    "Network",
    "NotSimulated",
    "Outcome",
    "SimNetwork",
    "SimulationError",
    "StreamTimes",
    "Stuck",
    "Timeline",
    "VirtualLoop",
]
