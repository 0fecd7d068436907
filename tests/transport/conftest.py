"""Fixtures shared with the contract suites."""

from tests.contracts.conftest import need_ipv6

__all__ = ["need_ipv6"]
