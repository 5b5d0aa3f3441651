"""Errors of a Redis Cluster that redis-py has no class for."""

from __future__ import annotations

from redis import exceptions


class SlotNotServed(exceptions.ConnectionError):
    """No node of the cluster that answers names a primary of the slot."""


class SlotMoved(exceptions.ConnectionError):
    """The node does not serve the slot now: it moves, has moved, or its primary fails over."""


class NotACluster(exceptions.ResponseError):
    """The server is not in cluster mode."""
