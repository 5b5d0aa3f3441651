"""One call that makes a version of a fitted model: `from headrace_worker import package`.

    version = package(model, X, name="churn")
    version.promote(why="auc 0.91")

It runs every step and check of `headrace models add`, and compares with the model's own predictions for the table.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from headrace.catalog.aliases import CANARY, PRODUCTION, SHADOW
from headrace.catalog.contract import Tokens
from headrace.errors import InvalidInput, ModelError
from headrace.settings import load_settings
from headrace_worker.cli.model_text import check_lines, manifest_lines
from headrace_worker.manifest import Limits, Manifest
from headrace_worker.packaging.package import AUTO
from headrace_worker.packaging.package import package as package_model
from headrace_worker.packaging.table import read_table
from headrace_worker.rollout.opening import open_promoter
from headrace_worker.rollout.promotion import Promotion
from headrace_worker.rollout.version_stats import VersionStats
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store

#: The most rows of a table that are used. The first ones stand for the others.
_MAX_ROWS = 10_000


class PackagedVersion:
    """A version in the model store. In a notebook it shows its contract and its checks."""

    def __init__(self, manifest: Manifest, settings: WorkerSettings, *, rows: int, score: float | None) -> None:
        self.manifest = manifest
        self._settings = settings
        #: The rows of the table.
        self.rows = rows
        #: The model's own score for the table and `y`; None without `y`.
        self.score = score

    @property
    def name(self) -> str:
        """The name of the model."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The number of the version, as text."""
        return self.manifest.version

    def promote(
        self,
        *,
        why: str = "",
        canary: float | None = None,
        shadow: bool = False,
        force: bool = False,
        wait: float = 60,
    ) -> Promotion:
        """Have the version serve, once every worker that serves the model has loaded and tested it.

        `why` is kept in the history. With `canary`, a share from 0 to 1, it runs that share of the jobs; with
        `shadow` it runs beside production without answering. `force` allows a contract that breaks producers.
        `wait` is the seconds to wait for the workers. Raises ModelError if a worker refuses it.
        """
        if canary is not None and shadow:
            raise InvalidInput("canary and shadow exclude each other")
        alias = SHADOW if shadow else CANARY if canary is not None else PRODUCTION
        with open_promoter(self._settings) as promoter:
            return promoter.promote(
                self.name, self.version, alias=alias, share=canary, force=force, wait=wait, reason=why
            )

    def rollback(self, *, why: str = "") -> Promotion:
        """Have the version serve that served before the last promotion. `why` is kept in the history."""
        with open_promoter(self._settings) as promoter:
            return promoter.rollback(self.name, reason=why)

    def compare(self) -> dict[str, VersionStats]:
        """Return what production, the canary and the shadow did so far, by alias, as far as these exist."""
        with open_promoter(self._settings) as promoter:
            return {f"{alias} {version}": stats for alias, version, stats in promoter.compare_versions(self.name)}

    def __repr__(self) -> str:
        return "\n".join([*manifest_lines(self.manifest), "", *self._notes()])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
            for cells in _table_rows(self.manifest)
        )
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self._notes())
        return (
            f"<p><b>{html.escape(self.manifest.title)}</b> {html.escape(self.manifest.estimator)}</p>"
            f"<table><thead><tr><th>feature</th><th>kind</th><th>type</th><th>missing</th></tr></thead>"
            f"<tbody>{rows}</tbody></table><ul>{notes}</ul>"
        )

    def _notes(self) -> list[str]:
        notes = list(check_lines(self.manifest, self.rows))
        if self.rows > _MAX_ROWS:
            notes.append(f"only the first {_MAX_ROWS:,} rows of the table were used and compared")
        return notes if self.score is None else [*notes, f"the model's own score for the table: {self.score:.4g}"]


def package(
    model: Any,
    X: Any,  # noqa: N803  # scikit-learn's name for a table
    *,
    name: str,
    y: Any = None,
    method: str | None = None,
    arguments: Mapping[str, Any] = MappingProxyType({}),
    runtime: str = AUTO,
    store: str | None = None,
    redis_url: str | None = None,
    code: str | Path | Sequence[str | Path] = (),
    trust_pickle: bool = False,
    limits: Limits | None = None,
) -> PackagedVersion:
    """Add a fitted model to the store as the next version of `name`.

    `X` is a table like the one the model was fitted on: a frame of pandas or polars, an array, or a list of
    instances. Its types, names and categories become the contract, its first rows the example, and 100 rows or
    more the profile that drift is measured against. The version's predictions are compared with the model's own
    for `X`. `y` are the targets of `X`, for the model's score. `method` is the default method, and `arguments` are
    constant arguments of it, as `{"return_std": True}`. `runtime` executes the model; `auto` finds the fastest.
    `store` and `redis_url` replace the settings HEADRACE_MODELS and HEADRACE_REDIS_URL. `code` are the files and
    folders of your own modules, which the version brings along; it needs `trust_pickle`, which stores as a pickle
    what skops cannot store. Raises ModelError and InvalidInput.
    """
    overrides = {key: value for key, value in (("models", store), ("redis_url", redis_url)) if value}
    settings = msgspec.structs.replace(load_settings(WorkerSettings), **overrides)
    _check_types({"name": name, "method": method or "", "runtime": runtime})
    if limits is not None and not isinstance(limits, Limits):
        raise InvalidInput(f"limits must be headrace_worker.manifest.Limits; got a {type(limits).__name__}")
    score = None if y is None else _score(model, X, y)
    table = read_table(_first_rows(X))
    if not table.instances:
        raise ModelError("the table has no rows; give it some of those that the model was fitted on")
    manifest = package_model(
        Store.from_settings(settings),
        model,
        name=name,
        example=table,
        method=method,
        arguments=arguments,
        runtime=runtime,
        code=_to_paths(code),
        trust_pickle=trust_pickle,
        limits=limits,
        max_bytes=settings.max_model_bytes,
    )
    return PackagedVersion(manifest, settings, rows=len(X), score=score)


def _check_types(arguments: dict[str, Any]) -> None:
    for argument, value in arguments.items():
        if not isinstance(value, str):
            raise InvalidInput(f"{argument} must be a text; got a {type(value).__name__}")


def _to_paths(code: Any) -> list[Path]:
    try:
        return [Path(code)] if isinstance(code, str | Path) else list(map(Path, code))
    except TypeError:
        raise InvalidInput(f"code must be a path or a list of paths; got a {type(code).__name__}") from None


def _first_rows(table: Any) -> Any:
    """Return the first rows of a table; what has none is left to the reader of tables, which refuses it."""
    try:
        return table[:_MAX_ROWS]
    except (TypeError, IndexError, KeyError):
        return table


def _score(model: Any, table: Any, targets: Any) -> float:
    try:
        return float(model.score(table, targets))
    except Exception as error:
        raise InvalidInput(
            f"the model cannot be scored with this table and y: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error


def _table_rows(manifest: Manifest) -> Iterator[Sequence[str]]:
    schema = manifest.contract.input
    features = getattr(schema, "features", None)
    if features is None:
        kind = "tokens" if isinstance(schema, Tokens) else getattr(schema, "kind", "text")
        yield ("", kind, getattr(schema, "dtype", None) or "", "")
        return
    for feature in features:
        missing = "may be left out" if feature.optional else "allowed" if feature.nullable else "no"
        yield (feature.name, feature.kind, feature.dtype or "", missing)
