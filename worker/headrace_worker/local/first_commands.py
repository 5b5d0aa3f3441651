"""First commands for a person who has just started Headrace: they predict the example of a model of the store."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from headrace.errors import HeadraceError
from headrace_worker.local.http_example import curl_line
from headrace_worker.store.store import Store

#: Characters of the longest instance that stands in a command; a longer one is written to a file.
_MAX_INLINE = 200


class _Example(NamedTuple):
    model: str
    instance: Any

    @property
    def text(self) -> str:
        """The instance as JSON."""
        return json.dumps(self.instance, ensure_ascii=False)


def describe_first_commands(store: Store, api: str | None, folder: Path) -> str:
    """Return indented commands that work. `api` is the URL of the gateway, if one runs.

    They name the model with the shortest example. A long instance is written to a file in `folder`.
    """
    examples = [example for model in store.models() if (example := _read_example(store, model)) is not None]
    if not examples:
        return (
            f"  headrace models add MODEL.skops --name NAME --example ROWS.csv --store {shlex.quote(store.title)}"
        )
    example = min(examples, key=lambda example: len(example.text))
    if len(example.text) <= _MAX_INLINE:
        argument, over_http = shlex.quote(example.text), api
    else:
        file = folder / f"{example.model}.json"
        file.write_text(example.text, encoding="utf-8")
        argument, over_http = shlex.quote(str(file)), None
    lines = f"  headrace submit {example.model} {argument} --wait"
    if over_http:
        lines += f"\n\nOver HTTP, from any language:\n\n  {curl_line(over_http, example.model, example.instance)}"
    return lines


def _read_example(store: Store, model: str) -> _Example | None:
    """Return the first instance of the newest version's example; None if the version cannot be read."""
    try:
        manifest = store.read_manifest(model, store.latest(model))
    except HeadraceError:
        return None
    instances = manifest.example.instances
    return _Example(model, instances[0]) if instances else None
