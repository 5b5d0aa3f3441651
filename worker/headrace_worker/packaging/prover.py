"""Prove a model in a fresh process before this one loads it: it may end or block the process that does.

The process that packages a model may be a notebook that has just fitted it, and a fork of that would wait for ever
for the threads of OpenMP that only the notebook has. So one prover is started. It imports the libraries, and forks
a child for each model. It reads a request and writes an answer a line, and ends with this process.

A command that has no such threads yet forks the prover from itself (`fork_prover`): to import the libraries a
second time would double its time.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from headrace.errors import ModelError
from headrace_worker.boosters import BoosterModel
from headrace_worker.manifest import Format, Manifest
from headrace_worker.models import loader
from headrace_worker.models.child_process import run_in_child
from headrace_worker.own_modules import OwnModules
from headrace_worker.store import artifact
from headrace_worker.threads import THREAD_VARIABLES

_COMMAND = "from headrace_worker.packaging.prover import main; main()"


class _Request(msgspec.Struct, kw_only=True):
    """A model to prove: a version with its manifest, or a file that is to be packaged."""

    title: str
    #: The files with the bytes of the artifact, of what a runtime compiled, and of modules; "" is none.
    data: str
    compiled: str = ""
    code: str = ""
    manifest: Manifest | None = None
    form: Format
    max_bytes: int
    trust_pickle: bool
    #: Where the requesting process looks for modules.
    sys_path: list[str]


class _Answer(msgspec.Struct):
    #: The error of the model; None if it is proven.
    error: str | None = None


def prove_version(
    manifest: Manifest, data: bytes, compiled: bytes, code: bytes, *, max_bytes: int, trust_pickle: bool
) -> None:
    """Load a version as a worker does, and run its example there and in a fork. Raises ModelError."""
    with (
        _write_file(data) as data_file,
        _write_file(compiled) as compiled_file,
        _write_file(code) as code_file,
    ):
        _PROVER.prove(
            _Request(
                title=manifest.title,
                data=data_file,
                compiled=compiled_file,
                code=code_file,
                manifest=manifest,
                form=manifest.format,
                max_bytes=max_bytes,
                trust_pickle=trust_pickle,
                sys_path=sys.path,
            )
        )


def prove_file(
    data: bytes, form: Format, title: str, code: bytes = b"", *, max_bytes: int, trust_pickle: bool
) -> None:
    """Read an estimator from bytes. Raises ModelError."""
    with _write_file(data) as data_file, _write_file(code) as code_file:
        _PROVER.prove(
            _Request(
                title=title,
                data=data_file,
                code=code_file,
                form=form,
                max_bytes=max_bytes,
                trust_pickle=trust_pickle,
                sys_path=sys.path,
            )
        )


class _Prover:
    """The prover of this process, started by the first request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | _Fork | None = None
        self._started_by = 0

    def fork(self) -> None:
        """Fork the process that answers from this one, which must not have started threads of OpenMP."""
        with self._lock:
            self._set(_Fork())

    def prove(self, request: _Request) -> None:
        """Send a request, and wait for its answer. Raises ModelError."""
        with self._lock:
            try:
                answer = self._ask(msgspec.json.encode(request))
            except BaseException:  # an answer that was not read would be taken for that of the next request
                self._stop()
                raise
        if answer.error is not None:
            raise ModelError(answer.error)

    def _ask(self, request: bytes) -> _Answer:
        process = self._running()
        assert process.stdin is not None  # noqa: S101  # both are pipes
        assert process.stdout is not None  # noqa: S101  # as above
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(request + b"\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise ModelError("the process that proves models has ended; see its output above, and try again")
        return msgspec.json.decode(line, type=_Answer)

    def _running(self) -> subprocess.Popen[bytes] | _Fork:
        if self._process is None or self._started_by != os.getpid() or self._process.poll() is not None:
            process = subprocess.Popen(  # noqa: S603  # this module, by this interpreter
                [sys.executable, "-c", _COMMAND],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={
                    **os.environ,
                    **dict.fromkeys(THREAD_VARIABLES, "1"),
                    "PYTHONPATH": os.pathsep.join(sys.path),
                },
                start_new_session=True,  # Ctrl-C is for the process that waits
            )
            self._set(process)
            return process
        return self._process

    def _set(self, process: subprocess.Popen[bytes] | _Fork) -> None:
        self._process, self._started_by = process, os.getpid()
        atexit.register(self._stop)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and self._started_by == os.getpid():
            process.kill()
            process.communicate()


class _Fork:
    """A fork of this process that answers requests, with the methods of Popen that `_Prover` needs."""

    def __init__(self) -> None:
        requests, answers = os.pipe(), os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(requests[1])
            os.close(answers[0])
            _answer_in_fork(requests[0], answers[1])
        os.close(requests[0])
        os.close(answers[1])
        self.stdin, self.stdout = os.fdopen(requests[1], "wb"), os.fdopen(answers[0], "rb")
        self._status: int | None = None

    def poll(self) -> int | None:
        """Return how the process ended; None while it runs."""
        if self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._status = status if pid else None
        return self._status

    def kill(self) -> None:
        """End the process."""
        if self.poll() is None:
            os.kill(self._pid, signal.SIGKILL)

    def communicate(self) -> None:
        """Close the pipes, and wait for the end of the process."""
        for pipe in (self.stdin, self.stdout):
            with contextlib.suppress(OSError):  # a request that nobody reads any more
                pipe.close()
        if self._status is None:
            self._status = os.waitpid(self._pid, 0)[1]


def _answer_in_fork(requests: int, answers: int) -> None:
    """Answer requests, and end this process: it must not return to what its parent does."""
    try:
        os.setsid()  # Ctrl-C is for the process that waits
        with Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)  # what a model prints is no answer
        with os.fdopen(requests, "rb") as lines, os.fdopen(answers, "wb") as written:
            _answer(lines, written)
    finally:
        os._exit(0)


_PROVER = _Prover()


def fork_prover() -> None:
    """Let a fork of this process prove models. To be called after the imports, and before a model is read."""
    _PROVER.fork()


def main() -> None:
    """Answer requests until the other process closes the pipe or ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a model prints is no answer
    _answer(sys.stdin.buffer, answers)


def _answer(requests: BinaryIO, answers: BinaryIO) -> None:
    for line in requests:
        answer = _Answer()
        try:
            _prove(msgspec.json.decode(line, type=_Request))
        except (ModelError, OSError) as error:
            answer = _Answer(str(error))
        answers.write(msgspec.json.encode(answer) + b"\n")
        answers.flush()


def _prove(request: _Request) -> None:
    sys.path[:] = request.sys_path
    max_bytes, trust_pickle = request.max_bytes, request.trust_pickle
    data = Path(request.data).read_bytes() if request.data else b""
    code = Path(request.code).read_bytes() if request.code else b""
    if request.manifest is not None:
        compiled = Path(request.compiled).read_bytes() if request.compiled else b""
        loader.prove_version(
            request.manifest, data, compiled, code, max_bytes=max_bytes, trust_pickle=trust_pickle
        )
        return

    def read() -> None:
        with OwnModules(code, request.title, max_bytes=max_bytes).importable():
            estimator = artifact.load(
                data, request.form, request.title, max_bytes=max_bytes, trust_pickle=trust_pickle
            )
        if isinstance(estimator, BoosterModel):
            estimator.exercise()

    run_in_child(read, seconds=loader.LOAD_SECONDS, doing=f"{request.title} was read")


@contextlib.contextmanager
def _write_file(data: bytes) -> Iterator[str]:
    if not data:
        yield ""
        return
    with tempfile.NamedTemporaryFile(prefix="headrace-") as file:
        file.write(data)
        file.flush()
        yield file.name
