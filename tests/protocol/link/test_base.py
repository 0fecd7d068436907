"""An audience knows its links, and forgets what was made of them whenever they change."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ocm.protocol.address import make_address
from ocm.protocol.control.packets import Form
from ocm.protocol.link.base import Addressing, Audience, Link, LinkForm
from ocm.protocol.link.classic import ClassicLink, OcmForm, PlainForm, ReferenceForm


def make_link(number: int) -> ClassicLink:
    return ClassicLink(
        Form.PLAIN, room="a", user=f"u{number}", token=b"%d" % number, address=make_address("10.0.0.1", number)
    )


@given(st.lists(st.integers(0, 9)))
def test_an_audience_holds_those_who_came_and_have_not_gone(numbers: list[int]) -> None:
    audience = Audience(PlainForm())
    links = [make_link(number) for number in range(10)]
    inside: set[Link] = set()
    for number in numbers:
        link = links[number]
        audience.prepared = "addresses"
        if link in inside:
            audience.discard(link)
            inside.remove(link)
            assert link.audience is None
        else:
            audience.add(link)
            inside.add(link)
            assert link.audience is audience
        assert audience.prepared is None
        assert set(audience.links) == inside
        assert len(audience.links) == len(inside)
        assert [one.place for one in audience.links] == list(range(len(inside)))


def test_equal_forms_share_what_one_encode_made() -> None:
    forms: list[LinkForm] = [OcmForm(b"a"), OcmForm(b"b"), PlainForm(), ReferenceForm(b"a"), ReferenceForm(b"a", True)]
    again: list[LinkForm] = [OcmForm(b"a"), OcmForm(b"b"), PlainForm(), ReferenceForm(b"a"), ReferenceForm(b"a", True)]
    assert forms == again
    assert len({*forms, *again}) == 5


def test_only_the_reference_form_needs_a_copy_for_each_and_echoes() -> None:
    assert [(form.addressing, form.echoes) for form in (OcmForm(b"a"), PlainForm(), ReferenceForm(b"a"))] == [
        (Addressing.GROUP, False),
        (Addressing.GROUP, False),
        (Addressing.EACH, True),
    ]
