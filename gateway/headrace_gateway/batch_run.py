"""A run of `:batch`: a thread that predicts what a task receives, and what it answers.

    receive ─> Spool ─> thread: predict_stream ─> AnswerPipe ─> send

A caller may send everything before he reads anything: only the jobs under way are bounded. If the caller hangs up,
or the body is too large, late or broken, both ends fail, so the thread ends and cancels its jobs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import BinaryIO, cast

import msgspec
from starlette.requests import ClientDisconnect, Request

from headrace import Client
from headrace.batch.stream import StreamOptions, predict_stream
from headrace.catalog.contract import Contract
from headrace.errors import HeadraceError
from headrace_gateway.answer_pipe import AnswerPipe
from headrace_gateway.callers import Caller
from headrace_gateway.problems import Problem, problem_of
from headrace_gateway.spool import Spool
from headrace_gateway.state import Gateway

log = logging.getLogger("headrace.gateway")

#: Runs at a time in one process.
MAX_RUNS = 8
#: Seconds between two looks whether the caller has hung up, while a run waits for the caller's rate.
_TICK_SECONDS = 1.0
#: Seconds before the end of the drain at which a run ends by itself: it notices within a tick, and cancels jobs.
_END_SECONDS = 2.5
#: Seconds for which a caller may send the rest of a body that is of no interest any more.
_LINGER_SECONDS = 2.0


class BatchRuns:
    """The runs of one process, each in a thread."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MAX_RUNS, thread_name_prefix="headrace-batch")
        self._count = 0

    def start(self, run: BatchRun) -> None:
        """Start the thread of a run. Raises a Problem, 503, if there are MAX_RUNS already."""
        if self._count >= MAX_RUNS:
            raise Problem(
                503,
                "too-many-batches",
                f"this gateway predicts {MAX_RUNS} files already; repeat the request a little later",
                headers={"Retry-After": "5"},
            )
        self._count += 1
        asyncio.get_running_loop().run_in_executor(self._threads, run.predict).add_done_callback(self._on_end)

    def _on_end(self, _: asyncio.Future[None]) -> None:
        self._count -= 1


class BatchRun:
    """One run. Make it in the event loop, and close it there."""

    def __init__(self, gateway: Gateway, caller: Caller, contract: Contract, options: StreamOptions) -> None:
        self._gateway, self._caller, self._settings = gateway, caller, gateway.settings
        self._contract, self._options = contract, options
        self._loop = asyncio.get_running_loop()
        self._spool, self._pipe = Spool(), AnswerPipe()
        self._tasks: list[asyncio.Task[None]] = []
        #: Set when the answer may begin: the whole body has arrived, or the run has ended without it.
        self._may_answer = asyncio.Event()
        #: Set when the whole body has arrived, or what is left of it is of no interest.
        self.has_arrived = asyncio.Event()
        #: Why the run failed; None while it goes on, and after a success.
        self.error: Exception | None = None

    def feed(self, request: Request, start: bytes, pieces: AsyncIterator[bytes]) -> None:
        """Receive the rest of a request's body in a task, which then waits for the caller to hang up.

        The run fails a moment before the process ends.
        """
        self._spool.write(start)
        for task in (self._feed(request, pieces), self._end_with_process()):
            self._tasks.append(asyncio.create_task(task, name="headrace-batch"))

    async def _end_with_process(self) -> None:
        await self._gateway.is_ending.wait()
        await asyncio.sleep(max(0.0, self._settings.gateway_drain - _END_SECONDS))
        detail = "this gateway is shutting down, and the file was not predicted in time; send it again"
        headers = {"Connection": "close", "Retry-After": "1"}
        self._fail(Problem(503, "shutting-down", detail, headers=headers))

    async def _feed(self, request: Request, pieces: AsyncIterator[bytes]) -> None:
        try:
            async for piece in pieces:
                self._spool.write(piece)
            self._spool.end()
            self.has_arrived.set()
            self._may_answer.set()
        except (Problem, ClientDisconnect) as error:
            self._fail(error)
        except OSError:
            log.exception("a body sent to :batch cannot be kept on the disk")
            self._fail(_no_room())
        while (message := await request.receive())["type"] != "http.disconnect":
            if not message.get("more_body", False):
                self.has_arrived.set()
        self._fail(ClientDisconnect())

    def _fail(self, error: Exception) -> None:
        self._spool.fail(error)
        self._pipe.fail(error)

    def predict(self) -> None:
        """Predict the rows: the work of the thread. What goes wrong is in `error`."""
        source, target = cast("BinaryIO", self._spool), cast("BinaryIO", self._pipe)
        try:
            with Client(settings=self._settings) as client:
                counts = predict_stream(
                    client,
                    self._contract,
                    source,
                    target,
                    self._options,
                    name="the body",
                    on_submit=self._pace,
                    on_wait=self._spool.check,
                )
                if self._options.file_format == "jsonl":
                    target.write(msgspec.json.encode(counts) + b"\n")
                target.flush()
        except Exception as error:  # noqa: BLE001  # the event loop answers it
            self.error = error
        finally:
            self._spool.close()
            self._pipe.end()
            with suppress(RuntimeError):  # the loop is closed: the process ends
                self._loop.call_soon_threadsafe(self._may_answer.set)

    def _pace(self) -> None:
        """Wait in the thread until the caller's rate permits a job more."""
        self._spool.check()
        if self._caller.rate is None:
            return
        pace = asyncio.run_coroutine_threadsafe(self._gateway.limits.rates.pace(self._caller, 1), self._loop)
        try:
            while not pace.done():
                self._spool.check()
                wait([pace], _TICK_SECONDS)
            pace.result()
        finally:
            pace.cancel()

    async def first(self) -> bytes:
        """Wait for the first bytes of the answer. Raises a Problem if the run failed before.

        An answer begins when the whole body has arrived: servers written in Go, such as Caddy and Traefik, drop
        what is left of a body once its answer has begun, and say nothing (golang/go#15527). With
        HEADRACE_GATEWAY_BATCH_DUPLEX it begins with the first rows.
        """
        if not self._settings.gateway_batch_duplex:
            await self._may_answer.wait()
        if self.error is None:
            self._pipe.open()
            if piece := await self.next():
                return piece
        raise self.problem()

    async def next(self) -> bytes:
        """Wait for the next bytes of the answer; none at its end, or if the run failed."""
        return await self._pipe.next()

    def problem(self) -> Problem:
        """Return what is answered to a run that failed. Raises ClientDisconnect if nobody is there to answer."""
        match self.error:
            case Problem() as problem:
                return problem
            case ClientDisconnect() as error:
                raise error
            case OSError() as error if not isinstance(error, HeadraceError):
                return _no_room()
            case HeadraceError() as error:
                problem = problem_of(error)
                problem.detail = problem.detail.replace("--column", "the query parameter `column`")
                return problem
        log.error("a run of :batch failed", exc_info=self.error)
        return Problem(500, "internal", "the gateway failed; its log has the cause")

    async def linger(self) -> None:
        """Let the caller send the rest for a moment. A connection that is closed before loses what it was sent."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                await self.has_arrived.wait()

    async def close(self) -> None:
        """End the run if it goes on: its thread cancels its jobs."""
        self._fail(ClientDisconnect())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pipe.close()


def _no_room() -> Problem:
    return Problem(507, "no-room", "the gateway has no room to keep the file; send a smaller one")
