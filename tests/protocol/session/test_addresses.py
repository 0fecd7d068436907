"""Addresses that prove themselves: who may be sent what, and when a peer has moved."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ocm.protocol.address import Address, make_address
from ocm.protocol.session.addresses import CANDIDATES_MAX, Addresses, FixedAddress

HOME, CAFE, TRAIN, SPOOFED = (make_address(f"192.0.2.{number}", 9) for number in range(1, 5))


class Counting:
    """Challenges that tell each other apart."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self, size: int) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(size, "big")


def known(address: Address = HOME) -> Addresses:
    addresses = Addresses(randomness=Counting())
    prove(addresses, address, now_s=0.0)
    return addresses


def prove(addresses: Addresses, address: Address, *, now_s: float) -> bool:
    addresses.receive(address, 100, newest=True, now_s=now_s)
    (candidate,) = addresses.challenges(now_s=now_s)
    return addresses.respond(address, candidate.challenge, now_s=now_s)


def test_the_first_address_proves_itself_too() -> None:
    addresses = Addresses(randomness=Counting())
    addresses.receive(HOME, 1200, newest=True, now_s=1.0)
    assert addresses.current is None
    assert addresses.next_timeout_s() == 1.0
    (candidate,) = addresses.challenges(now_s=1.0)
    assert addresses.respond(HOME, b"guessed!", now_s=1.1) is False
    assert addresses.respond(CAFE, candidate.challenge, now_s=1.1) is False
    assert addresses.respond(HOME, candidate.challenge, now_s=1.1) is True
    assert addresses.current == HOME
    assert addresses.next_timeout_s() is None


def test_a_challenge_that_was_never_sent_is_answered_by_nobody() -> None:
    addresses = Addresses(randomness=bytes)
    addresses.receive(HOME, 100, newest=True, now_s=0.0)
    assert addresses.respond(HOME, bytes(8), now_s=0.0) is False


def test_a_peer_that_moves_is_followed_once_it_has_answered() -> None:
    addresses = known()
    addresses.receive(CAFE, 100, newest=False, now_s=5.0)
    assert addresses.next_timeout_s() is None  # an old packet from elsewhere says nothing
    assert prove(addresses, CAFE, now_s=5.0)
    assert addresses.current == CAFE


def test_a_newer_packet_from_where_it_was_forgets_the_candidate() -> None:
    addresses = known()
    addresses.receive(CAFE, 100, newest=True, now_s=5.0)
    (candidate,) = addresses.challenges(now_s=5.0)
    addresses.receive(HOME, 100, newest=True, now_s=5.1)
    assert addresses.respond(CAFE, candidate.challenge, now_s=5.2) is False
    assert addresses.current == HOME


def test_the_address_changes_at_most_once_a_second() -> None:
    addresses = known()
    assert prove(addresses, CAFE, now_s=0.1), "the first address was no change"
    addresses.receive(HOME, 100, newest=True, now_s=0.2)
    assert addresses.challenges(now_s=1.0) == [], "no answer would count"
    assert addresses.next_timeout_s() == 1.1
    (candidate,) = addresses.challenges(now_s=1.1)
    assert addresses.respond(HOME, candidate.challenge, now_s=1.2)


def test_a_third_candidate_replaces_the_older_one() -> None:
    addresses = known()
    for address in (CAFE, TRAIN, SPOOFED):
        addresses.receive(address, 100, newest=True, now_s=5.0)
    assert [candidate.address for candidate in addresses.challenges(now_s=5.0)] == [TRAIN, SPOOFED]


def test_a_candidate_is_tried_three_times() -> None:
    addresses = known()
    addresses.receive(CAFE, 100, newest=True, now_s=5.0)
    times: list[float] = []
    while (due_s := addresses.next_timeout_s()) is not None:
        times += [due_s] * len(addresses.challenges(now_s=due_s))
        assert addresses.challenges(now_s=due_s) == []
    assert times == [5.0, 5.5, 6.0]


def test_a_peer_that_nothing_gets_through_to_proves_itself_anew() -> None:
    addresses = known()
    addresses.forget()
    assert addresses.current is None
    assert not addresses.may_send(HOME, 1)
    assert prove(addresses, HOME, now_s=30.0)
    assert addresses.current == HOME


def test_a_server_is_where_it_said_it_is() -> None:
    fixed = FixedAddress(HOME)
    fixed.receive(CAFE, 100, newest=True, now_s=0.0)
    fixed.sent(HOME, 1200)
    fixed.forget()
    assert fixed.respond(CAFE, bytes(8), now_s=0.0) is False
    assert fixed.may_send(CAFE, 1200)  # an answer goes to where the question came from
    assert (fixed.current, fixed.next_timeout_s(), fixed.challenges(now_s=9.0)) == (HOME, None, [])


def test_a_stranger_is_sent_nothing() -> None:
    addresses = known()
    assert addresses.may_send(HOME, 1200)
    assert not addresses.may_send(CAFE, 1)
    addresses.sent(CAFE, 1)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([CAFE, TRAIN]), st.integers(1, 1200)), max_size=40))
def test_nobody_unproved_is_sent_more_than_three_times_and_three_packets(
    steps: list[tuple[bool, Address, int]],
) -> None:
    addresses = known()
    received, sent, packets = dict.fromkeys((CAFE, TRAIN), 0), dict.fromkeys((CAFE, TRAIN), 0), dict[Address, int]()
    for is_heard, address, size in steps:
        if is_heard:
            addresses.receive(address, size, newest=True, now_s=5.0)
            received[address] += size
        elif addresses.may_send(address, size):
            addresses.sent(address, size)
            sent[address] += size
            packets[address] = packets.get(address, 0) + 1
        assert all(sent[one] <= 3 * received[one] for one in sent)
        assert all(count <= 3 for count in packets.values())
    assert CANDIDATES_MAX == 2
