"""The rules by which KEDA's `metrics-api` and `redis` triggers read a number (kedacore/keda, `pkg/scalers`)."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

#: The commands of the `redis` trigger's script, in its order. KEYS: the `listName`.
LIST_LENGTH = """
local kind = redis.call('type', KEYS[1]).ok
local sizes = {zset = 'zcard', set = 'scard', hash = 'hlen', list = 'llen', none = 'llen'}
if not sizes[kind] then return redis.error_reply('ERR unsupported key type: ' .. kind) end
return redis.call(sizes[kind], KEYS[1])
"""


class ValueMissing(Exception):
    """The trigger fails: KEDA keeps or falls back to a number of replicas, and scales to zero never."""


def read_value(text: str, value_location: str) -> float:
    """Return the number that a trigger with `format: prometheus` reads from a page of metrics.

    It is that of the first series of the name that has all labels of `value_location`. Raises ValueMissing.
    """
    selector = re.fullmatch(r"(\w+)(?:\{(.*)\})?", value_location)
    if selector is None:
        raise ValueMissing(f"{value_location} is no selector")
    name, labels = selector[1], dict(re.findall(r'(\w+)="([^"]*)"', selector[2] or ""))
    for family in text_string_to_metric_families(text):
        if family.name != name:
            continue
        for sample in family.samples:
            if labels.items() <= sample.labels.items():
                return sample.value
    raise ValueMissing(f"{value_location} is not on the page")
