"""Nobody can hold more places, for longer, than the limits allow, and nothing is counted that is gone."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ocm.protocol.address import Address, is_loopback, make_address
from ocm.protocol.admission import Admission, Visit
from ocm.protocol.limits import Limits


def enter(admission: Admission, peer: Address, *, now_s: float = 0.0) -> Visit:
    visit, leaving = admission.open(peer, now_s=now_s)
    assert visit is not None
    assert leaving == []
    return visit


def host(number: int) -> Address:
    return make_address(f"10.0.{number // 256}.{number % 256}", 1000)


LOCAL = make_address("127.0.0.1", 1000)


def test_the_oldest_visit_without_a_seat_goes_when_all_places_are_taken() -> None:
    admission = Admission(Limits(unseated_max=3))
    visits = [enter(admission, host(number)) for number in range(3)]
    admission.seat(visits[0])
    enter(admission, host(3))
    visit, leaving = admission.open(host(4), now_s=0.0)
    assert visit is not None
    assert leaving == [visits[1]]
    assert len(admission._unseated) == 3


def test_the_oldest_visit_of_a_host_goes_when_the_host_has_its_places_taken() -> None:
    admission = Admission(Limits(unseated_per_host_max=2))
    other = enter(admission, host(0))
    first, second = enter(admission, host(1)), enter(admission, host(1))
    _, leaving = admission.open(host(1), now_s=0.0)
    assert leaving == [first]
    _, leaving = admission.open(host(1), now_s=0.0)
    assert leaving == [second]
    assert len(admission._unseated) == 3
    admission.close(other, now_s=0.0)


def test_a_host_that_has_its_places_taken_drives_out_its_own_visits_when_all_places_are_taken_too() -> None:
    admission = Admission(Limits(unseated_per_host_max=2, unseated_max=3))
    victim = enter(admission, host(0))
    first = enter(admission, host(1))
    enter(admission, host(1))
    _, leaving = admission.open(host(1), now_s=0.0)
    assert leaving == [first]
    assert len(admission._unseated) == 3
    admission.seat(victim)


def test_addresses_of_one_64_share_their_places() -> None:
    admission = Admission(Limits(unseated_per_host_max=1))
    first = enter(admission, make_address("2001:db8::1", 1))
    _, leaving = admission.open(make_address("2001:db8::2", 1), now_s=0.0)
    assert leaving == [first]
    enter(admission, make_address("2001:db8:0:1::1", 1))


def test_loopback_is_not_counted_per_host() -> None:
    limits = Limits(unseated_per_host_max=2, abandoned_per_host_max=2)
    admission = Admission(limits)
    for visit in [enter(admission, LOCAL) for _ in range(10)]:
        admission.close(visit, now_s=0.0)
    enter(admission, LOCAL)


def test_eight_silent_connections_of_a_host_may_stay_long() -> None:
    limits = Limits()
    admission = Admission(limits)
    visits = [enter(admission, LOCAL, now_s=1.0) for _ in range(9)]
    assert [visit.quiet_until_s for visit in visits] == [121.0] * 8 + [6.0]
    assert enter(admission, host(1), now_s=1.0).quiet_until_s == 121.0
    admission.speak(visits[0])
    admission.speak(visits[8])
    assert enter(admission, LOCAL, now_s=2.0).quiet_until_s == 122.0


def test_256_silent_connections_in_all_may_stay_long() -> None:
    admission = Admission(Limits())
    visits = [enter(admission, host(number), now_s=1.0) for number in range(258)]
    assert [visit.quiet_until_s for visit in visits] == [121.0] * 256 + [6.0] * 2


def test_a_host_that_abandons_many_connections_waits_until_they_are_forgotten() -> None:
    limits = Limits(abandoned_per_host_max=3, abandoned_window_s=100.0)
    admission = Admission(limits)
    for now_s in (0.0, 10.0, 20.0):
        admission.close(enter(admission, host(1), now_s=now_s), now_s=now_s)
    assert admission.open(host(1), now_s=100.0) == (None, [])
    enter(admission, host(2), now_s=100.0)
    again = enter(admission, host(1), now_s=100.5)
    admission.close(again, now_s=101.0)
    assert admission.open(host(1), now_s=102.0) == (None, [])


def test_a_visit_that_was_driven_out_is_abandoned() -> None:
    admission = Admission(Limits(unseated_per_host_max=1, abandoned_per_host_max=2))
    for _ in range(3):
        admission.open(host(1), now_s=0.0)
    assert admission.open(host(1), now_s=0.0) == (None, [])


def test_who_got_a_seat_is_not_abandoned() -> None:
    admission = Admission(Limits(abandoned_per_host_max=1))
    for _ in range(5):
        visit = enter(admission, host(1))
        admission.seat(visit)
        assert visit.seated
        admission.close(visit, now_s=0.0)


def test_failed_joins_are_answered_late_after_ten_and_until_they_are_forgotten() -> None:
    admission = Admission(Limits())
    visit = enter(admission, host(1))
    assert admission.join_delay_s(visit, now_s=0.0) == 0.0
    assert [admission.fail_join(visit, now_s=float(number)) for number in range(12)] == [0.0] * 10 + [2.0] * 2
    assert admission.join_delay_s(visit, now_s=12.0) == 2.0, "whatever comes of it"
    neighbour, stranger = enter(admission, host(1)), enter(admission, host(2))
    assert admission.fail_join(neighbour, now_s=120.0) == 2.0
    assert admission.fail_join(stranger, now_s=120.0) == 0.0
    assert admission.fail_join(visit, now_s=300.0) == 0.0


def test_the_host_heard_of_longest_ago_is_forgotten() -> None:
    admission = Admission(Limits(hosts_max=2, failed_joins_max=1))
    first, second, third = (enter(admission, host(number)) for number in range(3))
    assert admission.fail_join(first, now_s=0.0) == 0.0
    assert admission.fail_join(second, now_s=0.0) == 0.0
    assert admission.fail_join(first, now_s=1.0) == 2.0
    assert admission.fail_join(third, now_s=1.0) == 0.0  # which forgets the second
    assert admission.fail_join(first, now_s=2.0) == 2.0
    assert admission.fail_join(second, now_s=2.0) == 0.0


PEERS = [host(1), host(2), make_address("2001:db8::1", 1), make_address("2001:db8::2", 1), LOCAL]


class Doors(RuleBasedStateMachine):
    """Visits come, speak, sit down and go in any order, and are counted as a plain list would count them."""

    limits = Limits(
        unseated_max=6,
        unseated_per_host_max=3,
        abandoned_per_host_max=4,
        silent_per_host_max=2,
        silent_max=4,
        hosts_max=3,
        failed_joins_max=2,
    )

    @initialize()
    def start(self) -> None:
        self.admission = Admission(self.limits)
        self.visits: list[Visit] = []
        self.standing: list[Visit] = []
        self.now_s = 0.0

    def pick(self, data: st.DataObject) -> Visit:
        return data.draw(st.sampled_from(self.visits))

    @rule(peer=st.sampled_from(PEERS))
    def open(self, peer: Address) -> None:
        silent = [visit for visit in self.standing if visit.silent]
        visit, leaving = self.admission.open(peer, now_s=self.now_s)
        if visit is None:
            assert not is_loopback(peer)
            assert leaving == []
            return
        assert len(leaving) <= 1
        for gone in leaving:
            mine = [other for other in self.standing if other.network == visit.network]
            assert gone in (self.standing[0], mine[0] if mine else None)
            self.standing.remove(gone)
            silent = [other for other in silent if other is not gone]
        waits = self.limits.silent_timeout_s
        if len(silent) >= 4 or sum(other.host == visit.host for other in silent) >= 2:
            waits = self.limits.silent_short_timeout_s
        assert visit.quiet_until_s == self.now_s + waits
        self.visits.append(visit)
        self.standing.append(visit)

    @precondition(lambda self: self.visits)
    @rule(data=st.data(), times=st.integers(1, 2))
    def speak(self, data: st.DataObject, times: int) -> None:
        visit = self.pick(data)
        for _ in range(times):
            self.admission.speak(visit)
        assert not visit.silent

    @precondition(lambda self: self.visits)
    @rule(data=st.data(), times=st.integers(1, 2))
    def seat(self, data: st.DataObject, times: int) -> None:
        visit = self.pick(data)
        for _ in range(times):
            self.admission.seat(visit)
        if visit in self.standing:
            self.standing.remove(visit)

    @precondition(lambda self: self.visits)
    @rule(data=st.data(), times=st.integers(1, 2))
    def close(self, data: st.DataObject, times: int) -> None:
        visit = self.pick(data)
        for _ in range(times):
            self.admission.close(visit, now_s=self.now_s)
        if visit in self.standing:
            self.standing.remove(visit)

    @precondition(lambda self: self.visits)
    @rule(data=st.data())
    def fail_join(self, data: st.DataObject) -> None:
        assert self.admission.fail_join(self.pick(data), now_s=self.now_s) in (0.0, self.limits.failed_join_delay_s)

    @rule(step_s=st.sampled_from([0.5, 60.0, 700.0]))
    def wait(self, step_s: float) -> None:
        self.now_s += step_s

    @invariant()
    def counts_are_those_of_the_list(self) -> None:
        admission = self.admission
        assert list(admission._unseated) == self.standing
        assert len(self.standing) <= self.limits.unseated_max
        silent = [visit for visit in self.standing if visit.silent]
        assert admission._silent == len(silent)
        for counter, keys in (
            (admission._unseated_of, [visit.network for visit in self.standing]),
            (admission._silent_of, [visit.host for visit in silent]),
        ):
            assert {key: keys.count(key) for key in keys} == dict(counter)
        for visit in self.standing:
            assert visit.is_local or admission._unseated_of[visit.network] <= self.limits.unseated_per_host_max
        assert len(admission._hosts) <= self.limits.hosts_max
        for behaviour in admission._hosts.values():
            assert len(behaviour.abandoned_s) <= self.limits.abandoned_per_host_max
            assert len(behaviour.failed_joins_s) <= self.limits.failed_joins_max

    def teardown(self) -> None:
        for visit in self.visits:
            self.admission.close(visit, now_s=self.now_s)
        assert not self.admission._unseated
        assert self.admission._silent == 0
        assert not self.admission._unseated_of
        assert not self.admission._silent_of


TestDoors = Doors.TestCase


@pytest.mark.parametrize("order", ["speak, close", "seat, close", "close, speak, seat"])
def test_doing_it_twice_changes_nothing(order: str) -> None:
    admission = Admission(Limits())
    visit, other = enter(admission, host(1)), enter(admission, host(1))
    for step in order.split(", "):
        for _ in range(2):
            match step:
                case "speak":
                    admission.speak(visit)
                case "seat":
                    admission.seat(visit)
                case _:
                    admission.close(visit, now_s=0.0)
    assert len(admission._unseated) == 1
    admission.close(other, now_s=0.0)
    assert not admission._unseated
