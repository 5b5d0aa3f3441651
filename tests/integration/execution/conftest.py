"""The Redis of jobs in a canvas, one for all tests: a Celery app cannot be moved to another Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.canvas_site import CanvasSite, canvas_site


@pytest.fixture(scope="session")
def canvas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CanvasSite]:
    """A site without a Headrace worker."""
    with canvas_site(tmp_path_factory.mktemp("canvas")) as site, site.ordinary_worker():
        yield site
