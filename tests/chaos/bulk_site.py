"""A site for the scenarios of bulk runs: a table, an undisturbed output, and the files of others."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import redis

from headrace import Client, RunCancelled, RunFailed, RunHandle
from headrace.bulk import read_run
from headrace.connection.commands import execute, run
from headrace.wire.bulk import FINAL_STATES, RunProgress
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from tests.chaos import bulk_model
from tests.chaos.bulk_model import DEED, KEY, MODEL, NUMBER, Call
from tests.chaos.environment import Environment
from tests.chaos.workers import PYTHONPATH

#: The reference of the table.
TABLE = "in:table"
#: Rows of a file: a chunk.
CHUNK_ROWS = 100
#: The share of rows that lack their number, and so fail.
_LACKING = 0.01
#: Seconds a run may take.
RUN_SECONDS = 120.0
#: Seconds between two readings of the receipts, and of tolerance between a reading and the clock of a call.
_READ_SECONDS = 0.02


class BulkSite:
    """The table `in:table` and the folder of `out:` of a scenario, with the model in its store.

    `deeds` are the deeds of rows, by their number.
    """

    def __init__(
        self, env: Environment, files: int, *, seconds: float, deeds: dict[int, int] | None = None
    ) -> None:
        self.env, self.files, self.seconds = env, files, seconds
        self.calls_file = env.folder / "bulk-calls"
        self.inputs, self.outputs = env.folder / "in", env.scratch
        self.table = self.inputs / "table"
        self.table.mkdir(parents=True)
        for number in range(files):
            write_file(self.table / f"{number:04}.parquet", number * CHUNK_ROWS, deeds or {})
        bulk_model.add_model(env.models)

    def settings(self, **changes: str) -> dict[str, str]:
        """Return the settings of a worker."""
        return {
            "HEADRACE_LOCATIONS": f"in={self.inputs}:r,out={self.outputs}:w",
            "HEADRACE_TRUST_PICKLE": "true",
            bulk_model.CALLS_VARIABLE: str(self.calls_file),
            bulk_model.SECONDS_VARIABLE: f"{self.seconds:g}",
            **changes,
        }

    def calls(self) -> list[Call]:
        """Return the recorded calls of the model."""
        return bulk_model.read_calls(self.calls_file)

    def progress(self, name: str) -> RunProgress:
        """Read a run. Raises UnknownRun, and the errors of Redis."""
        return run(partial(execute, self.env.server), read_run(Keys(), name))

    def wait(self, handle: RunHandle) -> RunProgress:
        """Wait for the end of a run, whatever it is; return what is known of it then."""
        with contextlib.suppress(RunFailed, RunCancelled):
            handle.wait(timeout=RUN_SECONDS)
        return handle.status()

    def exists(self, name: str) -> bool:
        """Decide whether a run was submitted; False while Redis is away."""
        with contextlib.suppress(redis.RedisError):
            return bool(self.env.server.exists(Keys().run(name)))
        return False

    def has_ended(self, name: str) -> bool:
        """Decide whether a run has ended; False while Redis is away."""
        with contextlib.suppress(redis.RedisError):
            return self.progress(name).state in FINAL_STATES
        return False

    def undisturbed(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Run runs of these names on a Redis of their own, without faults; return the digests of their files."""
        outputs = self.env.folder / "undisturbed"
        outputs.mkdir()
        settings = self.settings(HEADRACE_LOCATIONS=f"in={self.inputs}:r,out={outputs}:w", PYTHONPATH=PYTHONPATH)
        settings |= {bulk_model.CALLS_VARIABLE: "/dev/null", bulk_model.SECONDS_VARIABLE: "0"}
        with EmbeddedRedis("--appendfsync", "no") as server:
            worker = start_worker(server.url, self.env.models, self.env.folder, name="undisturbed", **settings)
            try:
                with Client(server.url) as client:
                    runs = [client.bulk(MODEL, TABLE, f"out:{name}", name=name, key=KEY) for name in names]
                    for handle in runs:
                        handle.wait(timeout=RUN_SECONDS)
            finally:
                worker.stop()
        return {name: digests(outputs / name) for name in names}

    def expect_equal(self, name: str, expected: dict[str, str]) -> None:
        """Record a broken promise unless a run has left what the undisturbed run left, byte for byte."""
        actual = digests(self.outputs / name)
        for title, files in (
            ("lacks", expected.keys() - actual.keys()),
            ("has too many of", actual.keys() - expected.keys()),
            (
                "has others of",
                {file for file in expected.keys() & actual.keys() if expected[file] != actual[file]},
            ),
        ):
            self.env.expect(not files, f"the output of {name} {title} the files {sorted(files)[:5]}")

    def expect_rows(self, name: str, failed: Sequence[int] = ()) -> None:
        """Record a broken promise unless each row is once in the output, with its prediction or an error.

        `failed` are the numbers of rows that must have an error besides those that lack their number.
        """
        rows = read_parts(self.outputs / name)
        keys = np.asarray(rows[KEY])
        self.env.expect(
            sorted(keys) == list(range(self.files * CHUNK_ROWS)), f"{name} has {len(keys)} rows, or other rows"
        )
        failures = set(failed)
        wrong = [
            row[KEY]
            for row in rows.to_pylist()
            if row["prediction"]
            != (None if row[NUMBER] is None or row[KEY] in failures else bulk_model.predict_numbers(row[NUMBER]))
            or (row["error"] is None) != (row["prediction"] is not None)
        ]
        self.env.expect(not wrong, f"{name} has wrong predictions of the rows {wrong[:5]}")


class ReceiptWatch:
    """The monotonic times at which the receipts of a run were first read, as a context manager."""

    def __init__(self, env: Environment, name: str) -> None:
        self._env, self._name = env, name
        #: By the number of the chunk.
        self.read_at: dict[int, float] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="chaos-receipts", daemon=True)

    def _read(self) -> None:
        with redis.Redis.from_url(self._env.redis.url, client_name="chaos-receipts") as client:
            while not self._stopped.wait(_READ_SECONDS):
                with contextlib.suppress(redis.RedisError, OSError):
                    units = client.hkeys(Keys().receipts(self._name))
                    for unit in units:
                        if unit.isdigit():
                            self.read_at.setdefault(int(unit), time.monotonic())

    def __enter__(self) -> ReceiptWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(10)


def write_file(file: Path, first: int, deeds: dict[int, int]) -> None:
    """Write a file of the table, from the row of this number on."""
    keys = np.arange(first, first + CHUNK_ROWS)
    lacking = np.random.default_rng([5, first]).random(CHUNK_ROWS) < _LACKING
    lacking[0] = False  # the first number of a call says which chunk it is
    values = [deeds.get(int(key), 0) for key in keys]
    columns: dict[str, Any] = {
        KEY: pa.array(keys),
        NUMBER: pa.array(keys.astype(float), mask=lacking),
        DEED: pa.array(values),
    }
    pq.write_table(pa.table(columns), file)


def read_parts(folder: Path) -> pa.Table:
    """Return the rows of all parts of a run."""
    return pa.concat_tables([pq.ParquetFile(file).read() for file in sorted(folder.glob("part-*.parquet"))])


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of each file below a folder, by its path there.

    What the run keeps for itself is left out, as it has times: `_headrace`, and `_SUCCESS`.
    """
    return {
        str(path): hashlib.sha256((folder / path).read_bytes()).hexdigest()
        for path in sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
        if path.parts[0] not in {"_headrace", "_SUCCESS"}
    }


def calls_of_chunks(calls: Sequence[Call]) -> Iterator[tuple[int, Call]]:
    """Yield the number of the file with each call. A file is a chunk, and they have the same order."""
    for call in calls:
        yield call.first // CHUNK_ROWS, call


def count_again(calls: Sequence[Call]) -> int:
    """Return the calls beyond the first of each chunk."""
    counts = Counter(chunk for chunk, _ in calls_of_chunks(calls))
    return sum(counts.values()) - len(counts)


def called_after_receipt(calls: Sequence[Call], read_at: dict[int, float]) -> list[int]:
    """Return the chunks that were predicted after their receipt was read."""
    return sorted({chunk for chunk, call in calls_of_chunks(calls) if call.started_at > read_at.get(chunk, 1e99)})
