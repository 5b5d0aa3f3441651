"""`python -m benchmarks.many_workers COUNT MODEL,...`: workers without pool processes, forked from one process.

Each is Celery's worker with Headrace's own channel, claim loop, lease keeper and threads, in a process of its own.
Two things differ from `headrace worker`: the pool is Celery's pool of threads, as the pool processes of so many
workers do not fit into one machine; and the models are loaded once, before the fork. The settings are in the
environment.

It prints "ready" when all workers are, and ends them when its stdin ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time

from celery import signals

from headrace.catalog.aliases import Aliases
from headrace_worker import app as worker_app
from headrace_worker.process import fork_memory

#: Options of prctl, on Linux: a signal when the parent ends, and no huge pages.
_PR_SET_PDEATHSIG, _PR_SET_THP_DISABLE = 1, 41
#: Seconds that the workers have to end after SIGTERM.
_STOP_SECONDS = 15.0


def main() -> None:
    """Fork the workers, and end them when stdin ends."""
    count, models = int(sys.argv[1]), sys.argv[2].split(",")
    for model in models:
        worker_app.service.registry.serve(Aliases(model), lambda _alias: None)
    fork_memory.freeze_heap()
    ctypes.CDLL(None).prctl(
        _PR_SET_THP_DISABLE, 1, 0, 0, 0
    )  # each worker would copy the shared memory into huge pages
    ready, tell_ready = os.pipe()
    workers = [_fork(number, tell_ready) for number in range(count)]
    os.close(tell_ready)
    answers = b""
    while len(answers) < count:
        answer = os.read(ready, count)
        if not answer:
            raise SystemExit(f"{count - len(answers)} of {count} workers ended before they were ready")
        answers += answer
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    _end(workers)


def _fork(number: int, tell_ready: int) -> int:
    """Fork a worker and return its process id. It writes a byte to `tell_ready` when it is ready."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        signals.worker_ready.connect(lambda **_: os.write(tell_ready, b"."), weak=False)
        options = ["--pool", "threads", "--concurrency", "1", "--hostname", f"many-{number}@%h", "-l", "ERROR"]
        worker_app.app.worker_main(["worker", *options])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException as error:  # noqa: BLE001  # the error of this process goes to its log
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(code)


def _end(workers: list[int]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + _STOP_SECONDS
        while workers and time.monotonic() < deadline:
            workers = [pid for pid in workers if os.waitpid(pid, os.WNOHANG)[0] == 0]
            time.sleep(0.05)


if __name__ == "__main__":
    main()
