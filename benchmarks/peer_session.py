"""The processes of a peer: its workers and its client, started, limited in time, and stopped by the suite."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.peers.registry import PeerEntry

#: Seconds for a worker to run its first jobs, and to exit after SIGTERM.
_READY_SECONDS, _STOP_SECONDS = 60.0, 10.0
_ROOT = Path(__file__).parent.parent


class PeerFailed(Exception):
    """The reason why a peer has no numbers."""


class Process:
    """A child process in a process group of its own, which is stopped as a whole."""

    def __init__(
        self, python: Path, arguments: Sequence[str], environ: dict[str, str], log: Path, **options: Any
    ) -> None:
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                [str(python), *arguments],
                cwd=_ROOT,
                env=os.environ | environ,
                stderr=output,
                start_new_session=True,
                **({"stdin": subprocess.DEVNULL, "stdout": output} | options),
            )
        self.log = log

    @property
    def has_exited(self) -> bool:
        """True once the process has ended."""
        return self.popen.poll() is not None

    def last_log_line(self) -> str:
        """Return the last line of the log, shortened."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "its log is empty"

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL to the whole group after `_STOP_SECONDS`."""
        with contextlib.suppress(ProcessLookupError):
            self.popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(_STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


class PeerSession:
    """A peer's client, and its workers once they are started. A context manager.

    `folder` holds the models and receives the logs; `python` is None for this interpreter.
    """

    def __init__(self, entry: PeerEntry, python: Path | None, *, url: str, folder: Path) -> None:
        self.name = entry.name
        self._module = entry.module
        self._python = python or Path(sys.executable)
        self._folder = folder
        self._environ = {
            "BENCH_REDIS_URL": url,
            "BENCH_MODELS": str(folder),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")])),
            # One thread per worker process, as in Headrace; with more, processes would compete for cores.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._workers: list[Process] = []
        self._client: Process | None = None

    def __enter__(self) -> Self:
        try:
            self._client = Process(
                self._python,
                ["-m", "benchmarks.peer_client", self._module],
                self._environ,
                self._folder / f"{self.name}.client.log",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        except OSError as error:
            raise PeerFailed(f"{self._python} does not run: {error.strerror}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._client is not None:
            with contextlib.suppress(OSError):
                self._client.popen.stdin.close()  # type: ignore[union-attr]  # it is a pipe
            self._client.stop()
        self.stop_workers()

    def start_workers(self, processes: int, model: str) -> None:
        """Start the workers, and return once they have predicted with `model`. Raises PeerFailed."""
        start = self.execute("worker_commands", _READY_SECONDS, processes=processes)
        for number, arguments in enumerate(start["commands"]):
            self._workers.append(
                Process(
                    self._python,
                    arguments,
                    self._environ | {"BENCH_ROLE": "worker"} | start["environ"],
                    self._folder / f"{self.name}.worker{number}.log",
                )
            )
        self._check_workers()
        self.execute("wait_for_workers", _READY_SECONDS * 2, model=model, seconds=_READY_SECONDS)

    def _check_workers(self) -> None:
        """Raise PeerFailed where a worker has exited half a second after its start."""
        time.sleep(0.5)
        for worker in self._workers:
            if worker.has_exited:
                raise PeerFailed(f"its worker exited at once: {worker.last_log_line()}")

    def stop_workers(self) -> None:
        """Stop the workers."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.stop()

    def execute(self, command: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        """Send a command to the client, and return its answer.

        Raises PeerFailed with the client's error, or where the client or a worker exited, or after `timeout`
        seconds.
        """
        assert self._client is not None, "used outside of the context"
        stdin, stdout = self._client.popen.stdin, self._client.popen.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise PeerFailed(f"its client exited: {self._client.last_log_line()}") from None
        ready, _, _ = select.select([stdout], [], [], timeout)
        if not ready:
            raise PeerFailed(f"no answer to {command} within {timeout:.0f} s{self._worker_failure()}")
        line = stdout.readline()
        if not line:
            raise PeerFailed(f"its client exited: {self._client.last_log_line()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailed(f"{command}: {answer['error']}{self._worker_failure()}")
        return answer

    def _worker_failure(self) -> str:
        exited = [worker for worker in self._workers if worker.has_exited]
        return f"; a worker exited: {exited[0].last_log_line()}" if exited else ""
