"""The sinks of the prediction log: JSON lines, Parquet files or a stream in Redis, each of bounded size."""

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

#: The size in bytes at which the next file of lines is started.
_LINE_FILE_BYTES = 64 * 1024**2
#: The age in seconds at which the next file of lines is started; a file can be read while it grows.
_LINE_FILE_SECONDS = 3600.0
#: The rows and the age in seconds at which buffered records are written to a Parquet file.
_PARQUET_ROWS, _PARQUET_SECONDS = 50_000, 60.0


class Sink(Protocol):
    """A destination of records. Its methods raise OSError or redis.RedisError if it cannot be written."""

    def write(self, records: Sequence[Record]) -> None:
        """Write records, or buffer them."""
        ...

    def idle(self) -> None:
        """Do what is due while there is nothing to write."""
        ...

    def close(self) -> None:
        """Write the buffered records, and release the destination."""
        ...


def check_destination(destination: str) -> None:
    """Check the value of HEADRACE_PREDICTION_LOG_TO before anything runs. Raises SettingError."""
    kind, _, folder = destination.partition(":")
    if destination != "redis" and not (kind in {"file", "parquet"} and folder):
        raise SettingError("HEADRACE_PREDICTION_LOG_TO is file:FOLDER, parquet:FOLDER or redis")
    if kind == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise SettingError("Parquet files need pyarrow: pip install 'headrace-worker[parquet]'")


def make_sink(settings: WorkerSettings, connect: Callable[[], redis.Redis], worker: str) -> Sink:
    """Return a sink for one process of a worker, as the settings say. `worker` is the worker's name."""
    kind, _, folder = settings.prediction_log_to.partition(":")
    if kind == "redis":
        return RedisStream(connect(), Keys(settings.key_prefix), settings.prediction_log_records)
    if kind == "parquet":
        return ParquetFiles(LogFolder(Path(folder), worker, ".parquet", settings.prediction_log_bytes))
    return LineFiles(LogFolder(Path(folder), worker, ".jsonl", settings.prediction_log_bytes))


class LogFolder:
    """The folder of the log files, with names for the files of one process.

    All files with `suffix` together take about `max_bytes` bytes; the oldest are deleted.
    """

    def __init__(self, path: Path, worker: str, suffix: str, max_bytes: int) -> None:
        self._path, self._suffix, self._max_bytes = path, suffix, max_bytes
        self._stem = f"{re.sub(r'[^A-Za-z0-9_.@-]', '_', worker)}-{os.getpid()}"
        self._number = 0

    def next_path(self) -> Path:
        """Delete the oldest files where needed, and return the path of a new file.

        Names sort by time, then by worker.
        """
        self._path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._delete_oldest()
        self._number += 1
        moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        return self._path / f"{moment}-{self._stem}-{self._number}{self._suffix}"

    def _delete_oldest(self) -> None:
        files = []
        for file in self._path.glob(f"*{self._suffix}"):
            try:
                stat = file.stat()
            except FileNotFoundError:  # another process has deleted it
                continue
            files.append((stat.st_mtime, stat.st_size, file))
        total = sum(size for _, size, _ in files)
        for _, size, file in sorted(files):
            if total <= self._max_bytes:
                return
            file.unlink(missing_ok=True)
            total -= size


class LineFiles:
    """JSON lines, a record each; a new file starts every hour, or when one is full."""

    def __init__(self, folder: LogFolder) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._bytes, self._expires = 0, 0.0

    def write(self, records: Sequence[Record]) -> None:
        """Append records to the file."""
        lines = _JSON.encode_lines(records)
        if self._file is None or self._bytes > _LINE_FILE_BYTES or time.monotonic() > self._expires:
            self.close()
            # Unbuffered: a line is in the file, or the write has failed.
            descriptor = os.open(self._folder.next_path(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._file = os.fdopen(descriptor, "ab", buffering=0)
            self._bytes, self._expires = 0, time.monotonic() + _LINE_FILE_SECONDS
        try:
            written = self._file.write(lines)
        except OSError:
            self.close()  # the disk is full: the next write tries a new file
            raise
        self._bytes += written
        if written < len(lines):
            self.close()
            raise OSError(28, "the disk is full")

    def idle(self) -> None:
        """Do nothing: no record is buffered."""

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


class ParquetFiles:
    """Parquet files, with inputs and outputs as a column of JSON each; one every minute, or sooner when full."""

    def __init__(self, folder: LogFolder) -> None:
        self._folder = folder
        self._buffer: list[Record] = []
        self._due = 0.0

    def write(self, records: Sequence[Record]) -> None:
        """Buffer records, and write a file when it is due."""
        if len(self._buffer) >= 2 * _PARQUET_ROWS:
            self.close()  # raises if the disk is still full
        if not self._buffer:
            self._due = time.monotonic() + _PARQUET_SECONDS
        self._buffer += records
        self.idle()

    def idle(self) -> None:
        """Write a file when it is due."""
        if self._buffer and (len(self._buffer) >= _PARQUET_ROWS or time.monotonic() > self._due):
            with contextlib.suppress(OSError):  # the records stay buffered; `write` raises once they are too many
                self.close()

    def close(self) -> None:
        """Write the buffered records to a file; if that fails they stay buffered."""
        records = self._buffer
        if not records:
            return
        self._due = time.monotonic() + _PARQUET_SECONDS
        import pyarrow as pa
        from pyarrow import parquet

        columns: dict[str, list[Any]] = {
            name: [_cell(getattr(record, name)) for record in records] for name in Record.__struct_fields__
        }
        types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
        schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
        path = self._folder.next_path()
        temporary = path.with_name(f".{path.name}")
        try:
            parquet.write_table(pa.table(columns, schema=schema), temporary, compression="zstd")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        self._buffer = []


#: The columns of a Parquet file and their types; inputs and outputs are JSON text.
COLUMNS: dict[str, type] = {
    **dict.fromkeys(Record.__struct_fields__, str),
    **dict.fromkeys(("schema", "at_ms", "attempt", "instance_count", "wait_ms", "batch_instances"), int),
    "predict_ms": float,
}


def _cell(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if isinstance(value, list) else value


class RedisStream:
    """A stream in Redis, an entry for each record, as JSON in the field `record`.

    Redis keeps about `max_records` entries and deletes the oldest.
    """

    def __init__(self, client: redis.Redis, keys: Keys, max_records: int) -> None:
        self._client, self._key, self._max_records = client, keys.prediction_log, max_records

    def write(self, records: Sequence[Record]) -> None:
        """Append records to the stream."""
        with self._client.pipeline(transaction=False) as pipe:
            for record in records:
                entry: dict[Any, Any] = {"record": _JSON.encode(record)}
                pipe.xadd(self._key, entry, maxlen=self._max_records, approximate=True)
            pipe.execute()

    def idle(self) -> None:
        """Do nothing: no record is buffered."""

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


_JSON = msgspec.json.Encoder(enc_hook=str)
