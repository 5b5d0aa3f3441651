"""Where the prediction log goes: files of JSON lines, Parquet files, or a stream in Redis. All of them bounded."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec
import redis

from headrace.errors import SettingError
from headrace.wire.keys import Keys
from headrace_worker.settings import WorkerSettings
from headrace_worker.telemetry.prediction_record import Record

#: Bytes of a file of lines, rows of a Parquet file, and seconds of either, before the next is begun.
_FILE_BYTES, _FILE_ROWS, _FILE_SECONDS = 64 * 1024**2, 50_000, 60.0
#: Seconds of a file of lines: it can be read while it grows.
_LINES_SECONDS = 3600.0


class Sink(Protocol):
    """Takes records. Raises OSError or redis.RedisError where it cannot."""

    def write(self, records: Sequence[Record]) -> None:
        """Keep records."""
        ...

    def idle(self) -> None:
        """There is nothing to write now."""
        ...

    def close(self) -> None:
        """Keep what is not yet, and take no more."""
        ...


def check_destination(to: str) -> None:
    """Raises SettingError for a HEADRACE_PREDICTION_LOG_TO that is none, before anything runs."""
    kind, _, folder = to.partition(":")
    if to != "redis" and not (kind in {"file", "parquet"} and folder):
        raise SettingError("HEADRACE_PREDICTION_LOG_TO is file:FOLDER, parquet:FOLDER or redis")
    if kind == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise SettingError("Parquet files need pyarrow: pip install 'headrace-worker[parquet]'")


def make_sink(settings: WorkerSettings, connect: Callable[[], redis.Redis], worker: str) -> Sink:
    """The sink that the settings ask for, for one process of a worker."""
    kind, _, folder = settings.prediction_log_to.partition(":")
    if kind == "redis":
        return RedisStream(connect(), Keys(settings.key_prefix), settings.prediction_log_records)
    if kind == "parquet":
        return ParquetFiles(Folder(Path(folder), worker, ".parquet", settings.prediction_log_bytes))
    return LineFiles(Folder(Path(folder), worker, ".jsonl", settings.prediction_log_bytes))


class Folder:
    """Names of files for one process, and a bound on all that lie there: the oldest go."""

    def __init__(self, path: Path, worker: str, suffix: str, most_bytes: int) -> None:
        self._path, self._suffix, self._most = path, suffix, most_bytes
        self._stem = f"{re.sub(r'[^A-Za-z0-9_.@-]', '_', worker)}-{os.getpid()}"
        self._number = 0

    def next(self) -> Path:
        """A file nobody else writes; room is made for it first. Names are in the order of time, by worker."""
        self._path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_room()
        self._number += 1
        moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        return self._path / f"{moment}-{self._stem}-{self._number}{self._suffix}"

    def _make_room(self) -> None:
        files = []
        for file in self._path.glob(f"*{self._suffix}"):
            try:
                told = file.stat()
            except FileNotFoundError:  # another process made room
                continue
            files.append((told.st_mtime, told.st_size, file))
        kept = sum(size for _, size, _ in files)
        for _, size, file in sorted(files):
            if kept <= self._most:
                return
            file.unlink(missing_ok=True)
            kept -= size


class LineFiles:
    """JSON, a record on a line; a file an hour, or sooner when it is full."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._bytes, self._until = 0, 0.0

    def write(self, records: Sequence[Record]) -> None:
        """Keep records."""
        lines = _LINES.encode_lines(records)
        if self._file is None or self._bytes > _FILE_BYTES or time.monotonic() > self._until:
            self.close()
            # Unbuffered: a line is in the file, or the write has failed.
            descriptor = os.open(self._folder.next(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._file = os.fdopen(descriptor, "ab", buffering=0)
            self._bytes, self._until = 0, time.monotonic() + _LINES_SECONDS
        try:
            written = self._file.write(lines)
        except OSError:
            self.close()  # the disk is full: the next file tries again
            raise
        self._bytes += written
        if written < len(lines):
            self.close()
            raise OSError(28, "the disk is full")

    def idle(self) -> None:
        """A line is in the file at once."""

    def close(self) -> None:
        """Take no more."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


class ParquetFiles:
    """Parquet, inputs and outputs as JSON in a column each; a file a minute, or sooner when it is full."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._rows: list[Record] = []
        self._until = 0.0

    def write(self, records: Sequence[Record]) -> None:
        """Keep records, with those of the same minute."""
        if len(self._rows) >= 2 * _FILE_ROWS:
            self.close()  # raises, where there was no room before and is none now
        if not self._rows:
            self._until = time.monotonic() + _FILE_SECONDS
        self._rows += records
        self.idle()

    def idle(self) -> None:
        """Write the file when it is time."""
        if self._rows and (len(self._rows) >= _FILE_ROWS or time.monotonic() > self._until):
            with contextlib.suppress(OSError):  # what waits is tried again, and refused once it is too much
                self.close()

    def close(self) -> None:
        """Write what there is; where that fails, it is kept for another try."""
        rows = self._rows
        if not rows:
            return
        self._until = time.monotonic() + _FILE_SECONDS
        import pyarrow as pa  # type: ignore[import-untyped]  # pyarrow has no types
        from pyarrow import parquet

        columns: dict[str, list[Any]] = {
            name: [_cell(getattr(row, name)) for row in rows] for name in Record.__struct_fields__
        }
        types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
        schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
        path = self._folder.next()
        beside = path.with_name(f".{path.name}")
        try:
            parquet.write_table(pa.table(columns, schema=schema), beside, compression="zstd")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        self._rows = []


#: The columns of a Parquet file, and their types; inputs and outputs are JSON.
COLUMNS: dict[str, type] = {
    **dict.fromkeys(Record.__struct_fields__, str),
    **dict.fromkeys(("schema", "at_ms", "attempt", "rows", "wait_ms", "batch_rows"), int),
    "predict_ms": float,
}


def _cell(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if isinstance(value, list) else value


class RedisStream:
    """A stream in Redis, a record an entry, as JSON in the field `record`; the oldest go."""

    def __init__(self, client: redis.Redis, keys: Keys, most: int) -> None:
        self._client, self._key, self._most = client, keys.prediction_log, most

    def write(self, records: Sequence[Record]) -> None:
        """Keep records."""
        with self._client.pipeline(transaction=False) as pipe:
            for record in records:
                pipe.xadd(self._key, {"record": _LINES.encode(record)}, maxlen=self._most, approximate=True)
            pipe.execute()

    def idle(self) -> None:
        """An entry is in the stream at once."""

    def close(self) -> None:
        """Take no more."""
        self._client.close()


_LINES = msgspec.json.Encoder(enc_hook=str)
