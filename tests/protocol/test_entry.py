"""The numbers and words that other programs see do not change by accident."""

from __future__ import annotations

from ocm.protocol.entry import Entry, Kind, Reason, Record, Refusal


def test_kinds_have_the_numbers_of_the_modern_profile() -> None:
    assert {kind.name: int(kind) for kind in Kind} == {"TEXT": 0, "JOIN": 1, "LEAVE": 2, "CLOSED": 5, "POLICY": 6}


def test_reasons_are_sentences_that_survive_the_wire() -> None:
    assert {Reason(reason.value.encode().decode()) for reason in Reason} == set(Reason)
    assert all(": " not in reason and reason.isascii() for reason in Reason)


def test_refusals_are_codes_that_mean_no() -> None:
    assert [int(refusal) for refusal in Refusal] == [400, 403, 404, 409, 429, 432, 433, 471, 472, 480]


def test_a_record_is_equal_to_its_copy() -> None:
    one, other = (Record("a", 1, Entry(1, 1, "alice", Kind.TEXT, b"hello", 0)) for _ in range(2))
    assert one == other
    assert one.entry.plaintext
