"""One peer at work: its workers and its client as child processes, started, bounded in time, and ended."""

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

from benchmarks.roster import Entry

#: Seconds until a worker has done its first jobs, and for it to end when told to.
_READY, _STOP = 60.0, 10.0
_ROOT = Path(__file__).parent.parent


class PeerFailed(Exception):
    """Why a peer has no numbers."""


class Process:
    """A child in a session of its own; whatever it forked ends with it."""

    def __init__(
        self, python: Path, arguments: Sequence[str], environ: dict[str, str], log: Path, **more: Any
    ) -> None:
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [str(python), *arguments],
                cwd=_ROOT,
                env=os.environ | environ,
                stderr=output,
                start_new_session=True,
                **({"stdin": subprocess.DEVNULL, "stdout": output} | more),
            )
        self.log = log

    @property
    def pipes(self) -> subprocess.Popen[bytes]:
        """The process, for its stdin and stdout."""
        return self._popen

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._popen.poll() is not None

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "it said nothing"

    def stop(self) -> None:
        """Ask it to end, then end its whole session."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(_STOP)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()


class Session:
    """A peer's client, and its workers when started. A context manager.

    `folder` has the models, and takes the logs.
    """

    def __init__(self, entry: Entry, python: Path | None, *, url: str, folder: Path) -> None:
        self.name = entry.name
        self._module = entry.module
        self._python = python or Path(sys.executable)
        self._folder = folder
        self._environ = {
            "BENCH_REDIS_URL": url,
            "BENCH_MODELS": str(folder),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")])),
            # One thread for each worker process, as Headrace does it: more would count cores twice.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._workers: list[Process] = []
        self._driver: Process | None = None

    def __enter__(self) -> Self:
        try:
            self._driver = Process(
                self._python,
                ["-m", "benchmarks.driver", self._module],
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
        if self._driver is not None:
            with contextlib.suppress(OSError):
                self._driver.pipes.stdin.close()  # type: ignore[union-attr]  # it was asked for
            self._driver.stop()
        self.stop_workers()

    def start_workers(self, processes: int, warm: str) -> None:
        """Start the workers; returns when they have predicted with the model `warm`."""
        plan = self.ask({"do": "plan", "processes": processes}, _READY)
        for number, command in enumerate(plan["commands"]):
            self._workers.append(
                Process(
                    self._python,
                    command,
                    self._environ | {"BENCH_ROLE": "worker"} | plan["environ"],
                    self._folder / f"{self.name}.worker{number}.log",
                )
            )
        self._wait_until_up()
        self.ask({"do": "start", "model": warm, "seconds": _READY}, _READY * 2)

    def _wait_until_up(self) -> None:
        # What a worker says when it is ready differs; that it has not ended does not.
        time.sleep(0.5)
        for worker in self._workers:
            if worker.ended:
                raise PeerFailed(f"its worker ended at once: {worker.last_words()}")

    def stop_workers(self) -> None:
        """End the workers."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.stop()

    def ask(self, order: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The driver's answer to an order. Raises PeerFailed: with its error, or that of a worker, or its time."""
        assert self._driver is not None, "asked outside of the context"
        pipes = self._driver.pipes
        assert pipes.stdin is not None
        assert pipes.stdout is not None
        try:
            pipes.stdin.write(json.dumps(order).encode() + b"\n")
            pipes.stdin.flush()
        except BrokenPipeError:
            raise PeerFailed(f"its client ended: {self._driver.last_words()}") from None
        ready, _, _ = select.select([pipes.stdout], [], [], seconds)
        if not ready:
            raise PeerFailed(f"no answer to {order['do']} within {seconds:.0f} s{self._of_workers()}")
        line = pipes.stdout.readline()
        if not line:
            raise PeerFailed(f"its client ended: {self._driver.last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailed(f"{order['do']}: {answer['error']}{self._of_workers()}")
        return answer

    def _of_workers(self) -> str:
        ended = [worker for worker in self._workers if worker.ended]
        return f"; a worker ended: {ended[0].last_words()}" if ended else ""
