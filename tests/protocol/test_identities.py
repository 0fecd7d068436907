"""Who is there: AUTH, fresh and resumed; which secrets are good, and until when (TCRP/2 sections 1 and 2)."""

from __future__ import annotations

import pytest

from ocm.protocol.entry import Identity
from ocm.protocol.limits import Limits
from ocm.protocol.wire.records import Authenticated, CloseCode
from tests.protocol.desk import Client, Desk, known, seat

DAY_S = 86_400.0


def resumed(client: Client) -> bool:
    return client.last(Authenticated).resumed


def test_somebody_new_is_given_an_id_and_a_secret() -> None:
    desk = Desk()
    alice, bob = known(desk, "alice"), known(desk, "bobby")
    assert not resumed(alice)
    assert alice.last(Authenticated).udp_port == 9001
    told = {one.last(Authenticated).client for one in (alice, bob)} | {one.secret for one in (alice, bob)}
    assert len(told) == 4
    assert None not in told


def test_who_shows_its_secret_is_who_it_was_and_is_given_the_next_one() -> None:
    desk = Desk()
    alice = known(desk, "alice")
    again = Client(desk, "again").authenticate(alice)
    assert resumed(again)
    assert again.client == alice.client
    assert again.secret != alice.secret


@pytest.mark.parametrize("wrong", ["secret", "client", "no secret", "no client"])
def test_a_wrong_secret_is_not_told_from_somebody_new(wrong: str) -> None:
    desk = Desk()
    alice = known(desk, "alice")
    assert alice.client is not None
    assert alice.secret is not None
    client = Client(desk, "mallory")
    match wrong:
        case "secret":
            client.authenticate(client=alice.client, secret="00" * 32)
        case "client":
            client.authenticate(client="00" * 16, secret=alice.secret)
        case "no secret":
            client.authenticate(client=alice.client)
        case _:
            client.authenticate(secret=alice.secret)
    assert not resumed(client)
    assert client.client != alice.client
    assert alice.closed is None


def test_the_journal_keeps_hashes_and_no_secret() -> None:
    desk = Desk()
    alice = Client(desk, "again").authenticate(known(desk, "alice"))
    assert alice.secret is not None
    [identity] = desk.ledger.identities.values()
    assert [len(digest) for digest in identity.secrets] == [32, 32]
    assert bytes.fromhex(alice.secret) not in identity.secrets


def test_auth_is_answered_when_the_journal_has_the_secret_and_not_sooner() -> None:
    desk = Desk(patient=True)
    client = Client(desk, "alice").authenticate()
    assert client.all(Authenticated) == []
    assert not client.session.client
    desk.commit()
    assert len(client.all(Authenticated)) == 1


def test_a_journal_that_fails_is_no_answer_and_the_old_secret_stays_good() -> None:
    desk = Desk()
    alice = known(desk, "alice")
    desk.patient = True
    client = Client(desk, "again").authenticate(alice)
    desk.fail()
    assert client.closed == CloseCode.GOING_AWAY
    assert client.all(Authenticated) == []
    assert alice.closed is None, "nothing has happened"
    desk.patient = False
    assert resumed(Client(desk, "third").authenticate(alice))


def test_a_failure_that_is_told_late_takes_nothing_back_that_came_after_it() -> None:
    desk = Desk(patient=True)
    for name in ("one", "two"):
        Client(desk, name).authenticate()
    first, second = desk.pending
    desk.pending.clear()
    desk.reception.failed(desk.hub.failed(first.up_to), now_s=desk.now_s)
    client = Client(desk, "three").authenticate()
    desk.reception.failed(desk.hub.failed(second.up_to), now_s=desk.now_s)
    desk.commit()
    assert client.closed is None
    assert len(client.all(Authenticated)) == 1


def test_the_old_secret_is_good_until_the_new_one_is_used() -> None:
    desk = Desk()
    first = known(desk, "first")
    second = Client(desk, "second").authenticate(first)  # and say that its answer was lost
    third = Client(desk, "third").authenticate(first)
    assert resumed(third)
    assert not resumed(Client(desk, "fourth").authenticate(second)), "the answer that was lost was taken back"
    fifth = Client(desk, "fifth").authenticate(third)
    assert resumed(fifth)
    assert not resumed(Client(desk, "sixth").authenticate(first))


def test_the_old_secret_is_good_until_the_new_one_is_stored() -> None:
    desk = Desk()
    first = known(desk, "first")
    second = Client(desk, "second").authenticate(first)
    second.stored()
    second.stored()
    assert not resumed(Client(desk, "third").authenticate(first))
    assert resumed(Client(desk, "fourth").authenticate(second))
    assert first.closed == CloseCode.REPLACED


def test_the_first_secret_of_all_may_be_said_to_be_stored() -> None:
    desk = Desk()
    alice = known(desk, "alice")
    written = desk.ledger.commits
    alice.stored()
    assert desk.ledger.commits == written, "it is the only one anyway"


def test_a_secret_that_is_stored_while_another_session_begins_is_what_the_client_has() -> None:
    desk = Desk()
    first = known(desk, "first")
    second = Client(desk, "second").authenticate(first)
    desk.patient = True
    Client(desk, "third").authenticate(first)  # its answer will be lost
    second.stored()
    desk.commit()
    desk.patient = False
    assert resumed(Client(desk, "fourth").authenticate(second))


def test_a_second_session_ends_the_first_when_it_is_heard_and_not_before() -> None:
    """Its answer may be lost with the connection: then the client goes on with what it has."""
    desk = Desk(patient=True)
    alice = Client(desk, "alice").authenticate()
    desk.commit()
    again = Client(desk, "again").authenticate(alice)
    desk.commit()
    assert resumed(again)
    assert alice.closed is None
    assert list(desk.reception.sessions.values()) == [alice.session]
    again.stored()
    assert alice.closed == CloseCode.REPLACED
    assert list(desk.reception.sessions.values()) == [again.session]


def test_a_third_session_ends_the_second_of_which_nothing_was_heard() -> None:
    desk = Desk()
    alice = known(desk, "alice")
    second = Client(desk, "second").authenticate(alice)
    third = Client(desk, "third").authenticate(alice)
    assert (alice.closed, second.closed, third.closed) == (None, CloseCode.REPLACED, None)
    third.stored()
    assert alice.closed == CloseCode.REPLACED
    assert list(desk.reception.sessions.values()) == [third.session]


def test_the_end_of_one_of_two_sessions_is_not_the_end_of_the_clients() -> None:
    desk = Desk()
    alice = known(desk, "alice")
    second = Client(desk, "second").authenticate(alice)
    written = desk.ledger.commits
    second.lose_stream()
    assert list(desk.reception.sessions.values()) == [alice.session]
    third = Client(desk, "third").authenticate(alice)
    alice.lose_stream()
    assert list(desk.reception.sessions.values()) == [third.session]
    assert desk.ledger.commits == written + 1, "the third's secret: nobody has parted"
    desk.now_s += 2 * DAY_S
    assert resumed(Client(desk, "fourth").authenticate(third))


def test_who_hung_up_before_it_was_answered_ends_nobody() -> None:
    desk = Desk()
    alice = known(desk, "alice")
    desk.patient = True
    again = Client(desk, "again").authenticate(alice)
    again.lose_stream()
    desk.commit()
    assert alice.closed is None
    assert again.all(Authenticated) == []
    desk.patient = False
    assert resumed(Client(desk, "third").authenticate(alice))


def test_who_is_away_is_known_for_a_day_and_no_longer() -> None:
    desk = Desk()
    alice = known(desk, "alice")
    alice.lose_stream()
    desk.now_s += DAY_S - 1
    again = Client(desk, "again").authenticate(alice)
    assert resumed(again)
    again.lose_stream()
    desk.now_s += DAY_S
    assert not resumed(Client(desk, "third").authenticate(again))
    assert bytes.fromhex(again.client or "") not in desk.reception._identities._known


def test_who_has_a_session_is_known_however_long_it_is() -> None:
    desk = Desk()
    [alice] = seat(desk, "lobby", "alice")
    desk.now_s += 100 * DAY_S
    assert resumed(Client(desk, "again").authenticate(alice))


def test_who_has_never_been_answered_is_forgotten_as_well() -> None:
    desk = Desk(patient=True)
    client = Client(desk, "alice").authenticate()
    client.lose_stream()
    desk.commit()
    desk.now_s += DAY_S
    known(desk, "other")
    desk.commit()
    assert len(desk.reception._identities._known) == 1


def test_after_a_restart_everybody_is_known_for_the_whole_time_again_whatever_the_clock_says() -> None:
    desk = Desk()
    alice = known(desk, "alice")
    [identity] = desk.ledger.identities.values()
    desk.ledger.identities[identity.client] = identity._replace(until_ms=0)
    desk.now_s += DAY_S / 2
    desk.crash()
    desk.now_s += DAY_S - 1
    again = Client(desk, "again").authenticate(alice)
    assert resumed(again)
    assert again.client == alice.client
    desk.crash()
    desk.now_s += DAY_S
    assert not resumed(Client(desk, "third").authenticate(again))


def test_the_journal_is_told_how_long_to_keep_whom() -> None:
    desk = Desk()
    alice = known(desk, "alice")

    def until_s() -> float:
        [identity] = desk.ledger.identities.values()
        return identity.until_ms / 1000 - 1_700_000_000.0 - desk.now_s

    assert until_s() == 30 * DAY_S
    again = Client(desk, "again").authenticate(alice)
    again.stored()
    assert alice.closed == CloseCode.REPLACED
    assert until_s() == 30 * DAY_S, "the session that was replaced is not the end of the client's"
    again.lose_stream()
    assert until_s() == DAY_S


def test_a_session_that_ends_while_the_next_begins_is_not_the_end_of_the_clients() -> None:
    desk = Desk()
    alice = known(desk, "alice")
    desk.patient = True
    again = Client(desk, "again").authenticate(alice)
    alice.lose_stream()
    assert len(desk.pending) == 1
    desk.commit()
    assert resumed(again)
    [identity] = desk.ledger.identities.values()
    assert identity.until_ms / 1000 - 1_700_000_000.0 - desk.now_s == 30 * DAY_S
    desk.now_s += 2 * DAY_S
    third = Client(desk, "third").authenticate(again)
    desk.commit()
    assert resumed(third)


def test_of_too_many_the_one_that_is_away_for_longest_is_forgotten_and_nobody_who_is_here() -> None:
    desk = Desk(Limits(identities_max=3))
    here, *others = [known(desk, name) for name in ("here", "one", "two", "three", "four")]
    assert len(desk.reception._identities._known) == 5, "all are here"
    for client in others:
        desk.now_s += 1
        client.lose_stream()
    known(desk, "five")
    assert resumed(Client(desk, "six").authenticate(others[3]))
    assert not resumed(Client(desk, "seven").authenticate(others[0]))
    assert resumed(Client(desk, "eight").authenticate(here))


def test_an_identity_shows_no_secret_to_a_log() -> None:
    desk = Desk(patient=True)
    Client(desk, "alice").authenticate()
    [claim] = desk.reception._identities._claims.values()
    assert claim.secret.hex() not in repr(claim)
    assert repr(claim.secret) not in repr(claim)
    assert isinstance(desk.pending[0].records[0], Identity)
