"""A whole network in one process and in virtual time, with real servers and clients on it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar

from ocm.environment import SIMULATION, Environment
from ocm.errors import LocalProtocolError, SimulationError, Stuck
from ocm.protocol.address import is_local_network
from ocm.store.worker import InlineWorker
from ocm.testing.virtual import START_S, VirtualLoop
from ocm.transport.certificate import Certificate
from ocm.transport.link_model import NS_PER_S, Carrier, Conditions, Direction, Draws, LinkModel, stream_key
from ocm.transport.sim import SimNetwork, World
from ocm.transport.sim_stream import StreamTimes
from ocm.transport.sim_tls import SEED_SIZE, SimClientSecurity, SimServerSecurity
from ocm.transport.timeline import Timeline

P = ParamSpec("P")
T = TypeVar("T")

EPOCH_S: Final = 1_700_000_000.0
"""The time of day at which every simulation begins, in seconds since 1970: a Tuesday in November 2023."""
DELAY_S: Final = 0.001
"""How long a packet takes between two hosts of which nothing was said, in seconds."""
RUN_MAX_S: Final = 86_400.0
"""How much virtual time a run may take, in seconds."""
NOTE_LINES: Final = 30
"""Lines of the timeline shown with a failure."""

_on_host: Final[ContextVar[str | None]] = ContextVar("ocm host", default=None)


class Network:
    """Hosts, links between them, and a clock that jumps: ``network.run(main())`` runs a program on it.

    Inside ``run``, ``ocm.serve`` puts its server on the host ``server`` and ``ocm.connect(..., user="aiko")`` its
    client on the host ``aiko``; ``with network.on("laptop")`` chooses another. Hosts reach each other by name.
    A loopback address means whoever listens there, on whatever host, so that ``server.url`` works everywhere.

    The same seed and program give the same run, and the same ``timeline`` byte for byte, on every machine. For that
    the program must not draw its own chance from elsewhere, nor look at the real clock.

    ``with Network(seed=7) as network:`` adds the seed and the end of the timeline to what is raised in the block.
    """

    def __init__(self, seed: int = 0, *, delay_s: float = DELAY_S, times: StreamTimes | None = None) -> None:
        """Make a network with the host ``server``; others are made when they are first named.

        Args:
            seed: decides all chance: what is lost, jitter, tokens.
            delay_s: seconds a packet takes between two hosts, each way, where ``link`` says nothing else.
            times: how long streams wait before they send again, and before they give up.
        """
        self.seed = seed
        self.timeline = Timeline()
        """What happened: who sent what when, and what became of it."""
        self._model = LinkModel(seed, path=Conditions(delay_s=delay_s))
        self._network = SimNetwork(self._model, timeline=self.timeline, times=times)
        self._made: dict[str, int] = {}
        self._plans: list[tuple[float, Callable[[], object]]] = []
        self._is_running = False

    @property
    def now_s(self) -> float:
        """Virtual seconds since the network began."""
        return self._world.now_ns() / NS_PER_S

    # --- hosts and links --------------------------------------------------------------------------------

    def link(
        self,
        host: str,
        other: str | None = None,
        *,
        loss: float | None = None,
        duplicate: float | None = None,
        reorder: float | None = None,
        delay_s: float | None = None,
        jitter_s: float | None = None,
        bandwidth: float | None = None,
        queue_size_max: int | None = None,
        direction: Direction = "both",
    ) -> None:
        """Set how packets of ``host`` fare, or with ``other`` those between the two; what is not given stays.

        Args:
            host: the host whose link it is.
            other: the host at the other end, where only traffic between the two is meant.
            loss: share of packets lost in each direction, 0 to 1. Streams lose time by it, datagrams are gone.
            duplicate: share of datagrams that arrive twice, 0 to 1.
            reorder: share of datagrams that later ones overtake, 0 to 1.
            delay_s: seconds added to each packet's way; a round trip has it twice.
            jitter_s: up to so many seconds more, uniform. Jitter alone reorders nothing.
            bandwidth: bytes per second; ``math.inf`` takes the bound away.
            queue_size_max: bytes that may wait for ``bandwidth``; what comes on top is lost.
            direction: ``up`` is from ``host``, ``down`` to it.

        Raises:
            LocalProtocolError: a value cannot be one.
        """
        for name in (host, other):
            if name is not None:
                self._world.host(name)
        self._model.link(
            host,
            other,
            loss=loss,
            duplicate=duplicate,
            reorder=reorder,
            delay_s=delay_s,
            jitter_s=jitter_s,
            bandwidth=bandwidth,
            queue_size_max=queue_size_max,
            direction=direction,
        )
        given = {
            "loss": loss,
            "duplicate": duplicate,
            "reorder": reorder,
            "delay_s": delay_s,
            "jitter_s": jitter_s,
            "bandwidth": bandwidth,
            "queue_size_max": queue_size_max,
        }
        said = " ".join(f"{name}={value}" for name, value in given.items() if value is not None)
        way = "" if direction == "both" else f" {direction}"
        self._world.note("link", host if other is None else f"{host} and {other}", f"{said}{way}")

    def cut(self, host: str, *, direction: Direction = "both", only: Carrier | None = None) -> None:
        """Pull the plug of a host: nothing gets out (``up``) or in (``down``) any more. Packets under way arrive.

        ``only="udp"`` is the firewall that lets no datagram through; ``heal`` takes it away, too.
        """
        self._world.host(host)
        self._model.cut(host, direction=direction, only=only)
        what = ("" if direction == "both" else direction, "" if only is None else only)
        self._world.note("cut", host, " ".join(word for word in what if word))

    def heal(self, host: str | None = None) -> None:
        """Undo the cuts and partitions of a host, or all of them."""
        self._model.heal(host)
        self._world.note("heal", "all" if host is None else host)

    def partition(self, group: Iterable[str], other: Iterable[str]) -> None:
        """Keep two groups of hosts apart, both ways; within a group all is as before."""
        one, two = (tuple(hosts) for hosts in (group, other))
        for name in (*one, *two):
            self._world.host(name)
        self._model.partition(one, two)
        self._world.note("partition", f"{' '.join(one)} | {' '.join(two)}")

    def move(self, host: str) -> None:
        """Give a host a new address, as a phone that leaves the house.

        Datagrams come from the new address from now on. Its streams are lost at once; the other ends are not told.
        """
        moving = self._world.host(host)
        self._world.move(moving)
        self._world.note("move", host, f"to address {moving.moves + 1}")

    def at(self, at_s: float, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call ``function(*args, **kwargs)`` ``at_s`` virtual seconds after the network began; at once if that is over.

        What it raises ends the run.

        Raises:
            LocalProtocolError: ``at_s`` is below 0.
        """
        if at_s < 0:
            raise LocalProtocolError("a moment of a simulation is 0 seconds after its beginning, or later")
        plan = at_s, lambda: function(*args, **kwargs)
        if self._is_running:
            self._plan(*plan)
        else:
            self._plans.append(plan)

    def host(self, name: str) -> SimNetwork:
        """Return the network as seen from a host, to be given to ``ocm.serve`` or ``ocm.connect`` as ``network=``."""
        return self._network.host(name)

    @contextlib.contextmanager
    def on(self, host: str) -> Generator[None]:
        """Put the servers and clients that are made in this block, and in tasks started in it, on a host."""
        self._world.host(host)
        before = _on_host.set(host)
        try:
            yield
        finally:
            _on_host.reset(before)

    # --- running --------------------------------------------------------------------------------------

    def run(self, program: Coroutine[Any, Any, T], *, at_most_s: float = RUN_MAX_S) -> T:
        """Run a coroutine in virtual time; return its result, or raise what it raises.

        A second run goes on at the time where the first one ended. Tasks that are left at the end are cancelled,
        as ``asyncio.run`` does.

        Args:
            program: what to run.
            at_most_s: virtual seconds it may take.

        Raises:
            LocalProtocolError: an event loop runs here already, or this network runs a program.
            NotSimulated: it asked for a thread, a socket or another process, even if it caught the error.
            Stuck: everybody waits for ever, somebody runs in circles, or ``at_most_s`` is over.
            SimulationError: an exception in the background was caught by nobody; it is the cause.
        """
        if self._is_running or asyncio._get_running_loop() is not None:
            program.close()
            raise LocalProtocolError("network.run starts a loop of its own: call it where none runs, not in async code")
        loop = VirtualLoop(START_S + self.now_s)
        context = contextvars.copy_context()
        context.run(SIMULATION.set, self._environment)
        context.run(_on_host.set, None)
        loop.until_s = loop.time() + at_most_s
        runner = asyncio.Runner(loop_factory=lambda: loop)
        self._world.attach(loop)
        self._is_running = True
        plans, self._plans = self._plans, []
        for plan in plans:
            self._plan(*plan)
        try:
            with _closing(runner, loop):
                result = runner.run(program, context=context)
        except Exception as error:
            if loop.refusals and error is not loop.refusals[0]:
                raise loop.refusals[0] from error
            raise
        finally:
            self._is_running = False
        if loop.refusals:
            raise loop.refusals[0]
        for complaint in loop.complaints:
            cause = complaint.get("exception")
            raise SimulationError(f"in the background: {complaint['message']} ({type(cause).__name__})") from cause
        return result

    def __enter__(self) -> Network:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Add the seed and the end of the timeline to an exception that passes."""
        if error is not None:
            error.add_note(self.report())

    def report(self, lines: int = NOTE_LINES) -> str:
        """Return what one wants to see of a failed run: the seed and the last lines of the timeline."""
        shown = min(lines, len(self.timeline))
        head = f"simulated network: seed {self.seed}, {self.now_s:.6f} virtual seconds"
        return f"{head}; the last {shown} of {len(self.timeline)} lines of its timeline:\n{self.timeline.tail(shown)}"

    @property
    def _world(self) -> World:
        return self._network.world

    def _plan(self, at_s: float, action: Callable[[], object]) -> None:
        """Have the loop do something; what it raises ends the run."""
        loop = self._world.loop
        assert isinstance(loop, VirtualLoop), "only ``run`` plans"

        def act() -> None:
            try:
                action()
            except Exception as error:
                loop.interrupt(error)

        at_ns = max(round(at_s * NS_PER_S), self._world.now_ns())
        self._world.schedule(at_ns, ("", "", "", 0), act)

    def _environment(self, host: str) -> Environment:
        """Return the surroundings of a new server or client."""
        name = _on_host.get() or host.replace(":", "_").replace("@", "_")  # which are free to be in users' names
        self._made[name] = number = self._made.get(name, 0) + 1
        randomness = Draws(stream_key(self.seed, "randomness", name, str(number)))
        jitter = Draws(stream_key(self.seed, "jitter", name, str(number)))

        def server_security(certificate: Certificate | None) -> SimServerSecurity:
            """A server that keeps its certificate has the same key when it comes back to its host, others another."""
            if certificate is None:
                return SimServerSecurity(randomness.data(SEED_SIZE))
            return SimServerSecurity(Draws(stream_key(self.seed, "kept key", name)).data(SEED_SIZE))

        return Environment(
            network=self._network.host(name),
            is_here=is_local_network,
            randomness=randomness.data,
            jitter=jitter.fraction,
            clock=lambda: EPOCH_S + self.now_s,
            monotonic=lambda: self.now_s,
            server_security=server_security,
            client_security=SimClientSecurity,
            worker=lambda _: InlineWorker(),
        )


@contextlib.contextmanager
def _closing(runner: asyncio.Runner, loop: VirtualLoop) -> Generator[None]:
    """Close a runner; where its tasks do not even end when they are cancelled, what went wrong first is raised."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Stuck):
            runner.close()
        loop.close()
        raise
    runner.close()
