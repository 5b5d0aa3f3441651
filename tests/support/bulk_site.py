"""A Redis, tables in a folder, and workers that run bulk jobs, for tests of whole runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import joblib
import msgspec
import numpy as np
import pyarrow as pa
import redis
from pyarrow import parquet

from headrace import Settings
from headrace.bulk import cancel_run, failures_of, make_run, read_run, resume_run, submit_run
from headrace.bulk.progress import RunFailures
from headrace.catalog.published import publish_contract
from headrace.clock import utc_now
from headrace.connection.commands import execute, run
from headrace.wire.bulk import FINAL_STATES, RunProgress
from headrace.wire.keys import Keys
from headrace_worker.local.stack import Child
from headrace_worker.manifest import Limits
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support.claim_models import Doubling, running_worker
from tests.support.waiting import wait_until

KEYS = Keys()
#: The columns of the model: `Doubling` predicts twice the first, and does what the second says.
COLUMNS = ("number", "action", "seconds")
LEASE_SECONDS = 1


def add_bulk_model(folder: Path, name: str = "doubling", **limits: Any) -> Path:
    """Package `Doubling` with named features. Return the path of its store."""
    model = Doubling().fit([[0.0] * len(COLUMNS)])
    model.feature_names_in_ = np.array(COLUMNS, dtype=object)
    joblib.dump(model, folder / "bulk.joblib")
    (folder / "bulk.json").write_bytes(msgspec.json.encode([dict.fromkeys(COLUMNS, 1.0) | {"action": 0.0}] * 2))
    store = Store(folder / "models")
    files = {"example": folder / "bulk.json", "trust_pickle": True}
    package(store, folder / "bulk.joblib", name=name, limits=Limits(**limits), **files)
    return store.path


class Server(Protocol):
    """A Redis with a URL."""

    @property
    def url(self) -> str: ...


class BulkSite(msgspec.Struct, frozen=True):
    """A Redis, a model store and a folder with the locations `in` and `out`."""

    redis: Server
    models: Path
    folder: Path
    #: The name of the folder for outputs.
    out: str = "out"

    @property
    def input(self) -> Path:
        return self.folder / "in"

    @property
    def output(self) -> Path:
        return self.folder / self.out

    @property
    def calls(self) -> list[list[int]]:
        """The numbers of the rows of each call of the model."""
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [[int(word) for word in line.split()] for line in lines]

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Keep rows with the action HOLD in the model. Forget all calls so far, which other runs made."""
        hold = self.folder / "calls.hold"
        hold.touch()
        (self.folder / "calls").unlink(missing_ok=True)
        try:
            yield
        finally:
            hold.unlink()

    @contextlib.contextmanager
    def worker(self, *options: str, name: str = "worker", **settings: str) -> Iterator[Child]:
        """Start a worker that runs bulk jobs."""
        own = {
            "HEADRACE_LEASE": str(LEASE_SECONDS),
            "HEADRACE_LOCATIONS": f"in={self.input}:r,out={self.output}:rw",
            **settings,
        }
        with running_worker(
            *options, url=self.redis.url, models=self.models, folder=self.folder, name=name, **own
        ) as child:
            yield child

    def write_table(
        self, rows: int, *, group_rows: int = 100, name: str = "rows.parquet", **actions: dict[int, float]
    ) -> None:
        """Write a Parquet file of numbered rows. `action` and `seconds` are values by row."""
        columns: dict[str, Any] = {"number": np.arange(rows, dtype=float)}
        for column in COLUMNS[1:]:
            values = np.zeros(rows)
            for row, value in actions.get(column, {}).items():
                values[row] = value
            columns[column] = values
        self.input.mkdir(exist_ok=True)
        parquet.write_table(pa.table(columns), self.input / name, row_group_size=group_rows)

    def do(self, operation: Any) -> Any:
        """Run an operation of a client."""
        with redis.Redis.from_url(self.redis.url) as client:
            return run(partial(execute, client), operation)

    def submit(self, name: str = "nightly", *, model: str = "doubling", **options: Any) -> RunProgress:
        """Submit a run from `in:rows.parquet` to the folder `out:NAME`."""
        with redis.Redis.from_url(self.redis.url) as client:
            publish_contract(client, KEYS, Store(self.models).read_manifest(model, "1").contract)
        run_ = make_run(model, options.pop("input", "in:rows.parquet"), f"out:{name}", name=name, **options)
        progress: RunProgress = self.do(submit_run(KEYS, run_, Settings(), None, contracts=None, now=utc_now()))
        return progress

    def read(self, name: str = "nightly") -> RunProgress:
        progress: RunProgress = self.do(read_run(KEYS, name))
        return progress

    def cancel(self, name: str = "nightly") -> RunProgress:
        progress: RunProgress = self.do(cancel_run(KEYS, name))
        return progress

    def resume(self, name: str = "nightly") -> RunProgress:
        progress: RunProgress = self.do(resume_run(KEYS, name, Settings(), None))
        return progress

    def failures(self, name: str = "nightly") -> RunFailures:
        failures: RunFailures = self.do(failures_of(KEYS, name))
        return failures

    def wait(self, name: str = "nightly", seconds: float = 60) -> RunProgress:
        """Wait until a run has ended, and return what is known of it."""
        wait_until(lambda: self.read(name).state in FINAL_STATES, seconds, lambda: str(self.read(name)))
        return self.read(name)

    def content(self, name: str = "nightly") -> dict[str, bytes]:
        """Return the files of an output, by path, without Headrace's own folder."""
        folder = self.output / name
        files = (path for path in folder.rglob("*") if path.is_file() and "_headrace" not in path.parts)
        return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}

    def predictions(self, name: str = "nightly") -> dict[int, float | None]:
        """Return the prediction of each row in the output."""
        table = self._read_parts(name)
        return {int(row["number"]): row["prediction"] for row in table}

    def _read_parts(self, name: str) -> list[dict[str, Any]]:
        parts = sorted((self.output / name).glob("part-*.parquet"))
        return [row for path in parts for row in parquet.read_table(path).to_pylist()]

    def read_rows(self, name: str = "nightly") -> list[int]:
        """Return the number of each row in the output."""
        return [int(row["number"]) for row in self._read_parts(name)]
