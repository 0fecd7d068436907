"""Planted bugs that the tests of the session layer must find: a test that finds none proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

from ocm.protocol.address import Address
from ocm.protocol.session import lane as lane_module
from ocm.protocol.session.addresses import Addresses, Candidate
from ocm.protocol.session.channel import Channel
from ocm.protocol.session.lane import Load
from ocm.protocol.session.path import Path
from ocm.protocol.session.recovery import Outcome, Recovery
from ocm.protocol.session.seal import Opener, Sealer
from ocm.protocol.wire.frames import Frame
from ocm.protocol.wire.sealed import SealedDatagram
from tests.protocol.session import test_channel as checks

Plant: TypeAlias = Callable[[pytest.MonkeyPatch], None]


class MarksBeforeItOpens(Opener):
    """A forged number moves the window, and all that is genuine is too old."""

    def open(self, datagram: SealedDatagram) -> bytes | None:
        opens = super().open(datagram)
        if opens is None and self.window.admits(datagram.packet_number):
            self.window.mark(datagram.packet_number)
        return opens


def marks_before_it_opens(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lane_module, "Opener", MarksBeforeItOpens)


def has_no_threefold_limit(patch: pytest.MonkeyPatch) -> None:
    def budget(self: Candidate) -> int:
        return 10**9

    patch.setattr(Candidate, "budget", budget)


def acknowledges_what_it_did_not_keep(patch: pytest.MonkeyPatch) -> None:
    take = Channel._take

    def take_all(self: Channel, frame: Frame, address: Address, now_s: float) -> bool:
        take(self, frame, address, now_s)
        return True

    patch.setattr(Channel, "_take", take_all)


def tells_nobody_of_losses(patch: pytest.MonkeyPatch) -> None:
    settle = Channel._settle

    def settle_half(self: Channel, outcome: Outcome[tuple[Load, ...]], now_s: float) -> None:
        settle(self, Outcome(outcome.acknowledged), now_s)

    patch.setattr(Channel, "_settle", settle_half)


def forgets_to_rewind(patch: pytest.MonkeyPatch) -> None:
    def stream_lost(self: Channel, *, now_s: float) -> None:
        self.stream_up = False

    patch.setattr(Channel, "stream_lost", stream_lost)


def keeps_what_is_under_way_on_a_path_that_is_none(patch: pytest.MonkeyPatch) -> None:
    def give_back(self: Channel, now_s: float) -> None:
        """Do nothing."""

    patch.setattr(Channel, "_give_back", give_back)


def keeps_an_address_that_nothing_gets_through_to(patch: pytest.MonkeyPatch) -> None:
    def forget(self: Addresses) -> None:
        """Do nothing."""

    patch.setattr(Addresses, "forget", forget)
    receive_datagram = Channel.receive_datagram

    def receive(self: Channel, datagram: SealedDatagram, address: Address, size: int, *, now_s: float) -> bool:
        opens = receive_datagram(self, datagram, address, size, now_s=now_s)
        self.path.begin(now_s=now_s)
        return opens

    patch.setattr(Channel, "receive_datagram", receive)


def follows_any_datagram(patch: pytest.MonkeyPatch) -> None:
    receive = Addresses.receive

    def receive_any(self: Addresses, address: Address, size: int, *, newest: bool, now_s: float) -> None:
        receive(self, address, size, newest=True, now_s=now_s)

    patch.setattr(Addresses, "receive", receive_any)


def believes_any_acknowledgement(patch: pytest.MonkeyPatch) -> None:
    def skipped(self: Sealer, first: int, last: int) -> list[int]:
        return []

    patch.setattr(Sealer, "skipped", skipped)


def keeps_to_the_window_when_it_probes(patch: pytest.MonkeyPatch) -> None:
    handle_timeout = Recovery[tuple[Load, ...]].handle_timeout

    def handle(self: Recovery[tuple[Load, ...]], *, now_s: float) -> Outcome[tuple[Load, ...]]:
        outcome = handle_timeout(self, now_s=now_s)
        return outcome if self.may_send(1200) else Outcome(outcome.acknowledged, outcome.lost)

    patch.setattr(Recovery, "handle_timeout", handle)


def wakes_up_in_the_middle_of_a_suspicion(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Path, "begin_again", Path.begin)


PLANTED: list[tuple[Plant, Callable[[], None]]] = [
    (marks_before_it_opens, checks.test_forged_datagrams_keep_nothing_from_coming),
    (
        has_no_threefold_limit,
        lambda: checks.test_a_spoofed_source_is_sent_three_packets_and_three_times_its_bytes_at_most(is_known=True),
    ),
    (
        acknowledges_what_it_did_not_keep,
        checks.test_a_frame_that_cannot_be_kept_leaves_its_packet_unacknowledged_and_comes_again,
    ),
    (tells_nobody_of_losses, lambda: checks.test_everything_arrives_over_a_terrible_network_without_tls(seed=0)),
    (forgets_to_rewind, lambda: checks.test_where_tls_is_lost_all_goes_on_by_datagram(seed=0)),
    (
        keeps_what_is_under_way_on_a_path_that_is_none,
        lambda: checks.test_where_udp_stops_all_moves_to_tls_within_ten_seconds_and_back_within_sixty(0, "both"),
    ),
    (
        keeps_an_address_that_nothing_gets_through_to,
        checks.test_whoever_has_an_address_that_nothing_gets_through_to_is_no_target,
    ),
    (follows_any_datagram, checks.test_a_datagram_that_comes_late_or_again_from_elsewhere_moves_nobody),
    (
        believes_any_acknowledgement,
        lambda: checks.test_an_acknowledgement_of_a_number_that_was_skipped_freezes_the_channel(is_largest=False),
    ),
    (
        keeps_to_the_window_when_it_probes,
        checks.test_a_probe_goes_out_though_the_window_is_closed_and_carries_the_oldest,
    ),
    (
        wakes_up_in_the_middle_of_a_suspicion,
        checks.test_a_sleep_of_hours_in_the_middle_of_a_suspicion_is_not_the_end,
    ),
]


@pytest.mark.parametrize(("plant", "check"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_a_planted_bug_is_found(plant: Plant, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    check()
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()
