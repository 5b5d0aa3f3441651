"""Celery's settings that choose the transport of this package for a broker's URL."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

#: The names of the transport and of its variants at kombu.
ALIAS = "headrace"
SENTINEL_ALIAS, CLUSTER_ALIAS = f"{ALIAS}-sentinel", f"{ALIAS}-cluster"


class Hook:
    """A callable among the transport options. As JSON it is its name, for `celery inspect stats` and Flower."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        """Call it."""
        return self._call(*args)

    def __json__(self) -> str:
        """Return the name; kombu's encoder calls this."""
        return self._call.__qualname__


def broker_settings(broker_url: str, *, in_cluster: bool = False) -> dict[str, Any]:
    """Return the settings that choose the transport. `in_cluster` is true if the URL names a node of a cluster."""
    if in_cluster:
        return {"broker_transport": CLUSTER_ALIAS}
    if broker_url.startswith("redis+socket:"):
        # kombu chooses by the scheme of such a URL, whatever transport is set.
        return {"broker_url": broker_url.replace("redis+", f"{ALIAS}+", 1)}
    if broker_url.startswith("sentinel:"):
        return {"broker_transport": SENTINEL_ALIAS, "broker_failover_strategy": Hook(_cycle_sentinels)}
    return {"broker_transport": ALIAS}


def _cycle_sentinels(urls: Iterable[str]) -> Iterator[str]:
    """Yield the URLs of the Sentinels in turn, without end. kombu chooses the transport by their scheme."""
    return itertools.cycle(url.replace("sentinel:", f"{SENTINEL_ALIAS}:", 1) for url in urls)
