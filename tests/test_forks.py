"""A forked child seals nothing with its parent's keys: the same number under the same key twice would open both."""

from __future__ import annotations

import os

import pytest

from ocm import forks
from ocm.errors import LocalProtocolError
from ocm.protocol.agent import Agent
from tests.campaign.world import World


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_seals_nothing() -> None:
    world = World(1)
    aiko = world.add("aiko", creates=True)
    aiko.start()
    world.run(until_s=3.0)
    agent = aiko.agent
    assert isinstance(agent, Agent)
    (session,) = world.server.reception.sessions.values()
    assert session.channel is not None
    assert agent._sessions.current is not None
    assert agent._sessions.current.channel is not None
    lanes = [session.channel.lane, agent._sessions.current.channel.lane]
    forks.watch(agent)
    forks.watch(world.server.reception)
    child = os.fork()
    if child == 0:
        refused = 0
        for lane in lanes:
            try:
                lane.seal(b"\x01")
            except LocalProtocolError:
                refused += 1
        os._exit(0 if refused == 2 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert [len(lane.seal(b"\x01")) for lane in lanes] == [33, 33], "the parent goes on"
