"""Every limit is there, above zero, and documented."""

from __future__ import annotations

import ast
import inspect
from dataclasses import FrozenInstanceError, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import LocalProtocolError
from ocm.protocol.limits import DATAGRAM_SIZE_MAX, Limits

NAMES = [bound.name for bound in fields(Limits) if bound.init]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_is_above_zero(name: str, value: int) -> None:
    with pytest.raises(LocalProtocolError, match=name):
        Limits(**{name: value})


@given(name=st.sampled_from(NAMES), value=st.integers(1, 255))
def test_a_limit_may_be_any_number_above_zero(name: str, value: int) -> None:
    assert getattr(Limits(**{name: value}), name) == value


def test_a_room_name_has_one_byte_for_its_size() -> None:
    assert Limits(room_size_max=255).room_size_max == 255
    with pytest.raises(LocalProtocolError, match="room_size_max"):
        Limits(room_size_max=256)


def test_every_limit_says_what_it_bounds() -> None:
    (tree,) = ast.parse(inspect.getsource(Limits)).body
    assert isinstance(tree, ast.ClassDef)
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(text, ast.Expr), f"line {field.lineno} of Limits has no docstring"


def test_limits_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Limits().rooms_max = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("payload_size_max", 4096),
        ("header_timeout_s", 5.0),
        ("body_timeout_s", 10.0),
        ("silent_timeout_s", 120.0),
        ("silent_short_timeout_s", 5.0),
        ("silent_per_host_max", 8),
        ("silent_max", 256),
        ("unseated_max", 2000),
        ("unseated_per_host_max", 16),
        ("abandoned_per_host_max", 32),
        ("abandoned_window_s", 600.0),
        ("failed_joins_max", 10),
        ("failed_joins_window_s", 120.0),
        ("burst_max", 200),
        ("rate_per_s", 50.0),
        ("reply_pause_s", 0.02),
    ],
)
def test_the_defaults_are_those_of_the_threat_model(name: str, value: float) -> None:
    assert getattr(Limits(), name) == value


def test_a_classic_datagram_has_4096_bytes_at_most() -> None:
    assert DATAGRAM_SIZE_MAX == 4096


@given(st.integers(1, 10**6), st.floats(0.001, 1e6))
def test_the_rhythm_of_sending_follows_from_rate_and_burst(burst: int, rate: float) -> None:
    limits = Limits(burst_max=burst, rate_per_s=rate)
    assert limits.send_interval_s == 1 / rate
    assert limits.burst_s == (burst - 1) / rate
