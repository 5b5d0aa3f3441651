"""The site that the tests of the notifier share."""

from tests.support.notify_site import site

__all__ = ["site"]  # a fixture
