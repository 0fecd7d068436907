"""The server's side of a session goes the way of its table, and every step of the table can be gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ocm.protocol.address import make_address
from ocm.protocol.limits import Limits
from ocm.protocol.link.modern_session import SESSION_STEPS, ModernSession, SessionState, SessionStep
from ocm.protocol.wire.classic import Stage
from ocm.protocol.wire.records import SUITE, VERSION, Authenticate, CloseCode, Closing, Hello, Op, write_record

HELLO = write_record(
    Op.HELLO, Stage.REQUEST, Hello(versions=[VERSION], suites=[SUITE], secret="ab" * 32, connection="cd" * 8)
)
AUTH = write_record(Op.AUTH, Stage.REQUEST, Authenticate())
BYE = write_record(Op.CLOSE, Stage.REQUEST, Closing(code=CloseCode.BYE))


def session() -> ModernSession:
    return ModernSession(
        server_key=b"a public key",
        peer=make_address("192.0.2.1", 4000),
        limits=Limits(),
        durability="memory",
        randomness=bytes,
        stir=lambda _: None,
        now_s=0.0,
    )


def hear(record: bytes) -> Callable[[ModernSession], None]:
    def step(one: ModernSession) -> None:
        list(one.events(record, now_s=0.0))

    return step


def know(one: ModernSession) -> None:
    one.known(client=bytes(16), resumed=False, secret=bytes(32), udp_port=0, now_s=0.0)


def lose(one: ModernSession) -> None:
    one.stream_lost(now_s=0.0)


STEPS: dict[SessionStep, Callable[[ModernSession], None]] = {
    SessionStep.HELLO: hear(HELLO),
    SessionStep.AUTH: hear(AUTH),
    SessionStep.KNOWN: know,
    SessionStep.LOST: lose,
    SessionStep.BOTH_LOST: lose,  # without a UDP port there is no other way
    SessionStep.CLOSE: hear(BYE),
}
WAY = [SessionStep.HELLO, SessionStep.AUTH, SessionStep.KNOWN]


def at(state: SessionState) -> ModernSession:
    """Bring a session to a state."""
    one = session()
    for step in WAY:
        if one.state is not state:
            STEPS[step](one)
    assert one.state is state
    return one


@pytest.mark.parametrize(("before", "step"), SESSION_STEPS)
def test_every_step_of_the_table_is_gone(before: SessionState, step: SessionStep) -> None:
    one = at(before)
    STEPS[step](one)
    assert one.state is SESSION_STEPS[before, step]


@pytest.mark.parametrize("before", [SessionState.HELLO, SessionState.AUTH, SessionState.COMMITTING, SessionState.OPEN])
def test_what_breaks_the_rules_ends_it_and_what_comes_then_changes_nothing(before: SessionState) -> None:
    one = at(before)
    list(one.events(HELLO + HELLO, now_s=0.0))
    assert one.state is SessionState.OVER
    assert one.closing is CloseCode.PROTOCOL
    for step in (hear(BYE), lose, lose):
        step(one)
        assert one.state is SessionState.OVER
    assert one.closing is CloseCode.PROTOCOL
