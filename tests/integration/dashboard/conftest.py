"""Flower with our pages, on a real Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.flower_site import Site, two_sites


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Site]]:
    """Start two Flowers on one Redis: the first allows actions, the second is read-only."""
    with two_sites(tmp_path_factory.mktemp("flower")) as sites:
        yield sites


@pytest.fixture
def acting(sites: tuple[Site, Site]) -> Site:
    sites[0].redis.flushall()
    return sites[0]


@pytest.fixture
def read_only(sites: tuple[Site, Site]) -> Site:
    sites[1].redis.flushall()
    return sites[1]
