"""What every test shares: hypothesis profiles, and the search for secrets in what they write."""

import os

import pytest
from hypothesis import HealthCheck, settings

from tests import canaries

settings.register_profile("default", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("campaign", max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure(config: pytest.Config) -> None:
    """Mark secrets and look for them, where that is asked for (``make canaries``)."""
    if canaries.VARIABLE in os.environ:
        config.pluginmanager.register(canaries.Watch(), "canaries")
