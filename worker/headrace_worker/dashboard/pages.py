"""The pages Headrace adds to Flower, and the same as JSON: dead letters, models, queues."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any, get_args

import msgspec
from flower.views import BaseHandler
from tornado import ioloop, web

from headrace.connection.commands import Operation
from headrace.dead_letters.bulk import BulkOperation, BulkResult
from headrace.dead_letters.filter import DeadLetterFilter, parse_filter
from headrace.errors import HeadraceError, InvalidInput, UnknownLetter, UnknownModel
from headrace.monitor.overview import Overview
from headrace.wire.attempts import counted_attempts
from headrace.wire.outcome import Reason
from headrace_worker.dashboard import letters, served

log = logging.getLogger("headrace.dashboard")

#: Letters one click deals with at the most: those of a page.
_SELECTED = letters.PAGE


class Page(BaseHandler):  # type: ignore[misc]  # flower has no types
    """A page for those who may look; under /api it is JSON."""

    def prepare(self) -> None:
        """Ask for the login before anything else."""
        if not self.current_user:
            raise web.HTTPError(401 if self._as_json or not self.application.options.auth else 403)

    def set_default_headers(self) -> None:
        """No other site reads or frames what is here, and no cache keeps it."""
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("Cache-Control", "no-store")

    def check_xsrf_cookie(self) -> None:
        """Whatever the login is: what changes something comes from a page of ours."""
        if self.request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise web.HTTPError(403, "Cross-site request forbidden")
        web.RequestHandler.check_xsrf_cookie(self)

    @property
    def _as_json(self) -> bool:
        return "/api/" in self.request.path

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Errors of ours as a sentence; a page for a browser, JSON for the rest."""
        error = kwargs.get("exc_info", (None, None))[1]
        if isinstance(error, HeadraceError):
            status_code = _status(error)
            self.set_status(status_code)
        ours = isinstance(error, HeadraceError)
        said = str(error) if ours else getattr(error, "log_message", None) or self._reason
        if self._as_json:
            if status_code == 401:
                self.set_header("WWW-Authenticate", 'Basic realm="flower"')
            self.finish({"error": said})
        elif ours:
            self.render("trouble.html", said=said)
        else:
            super().write_error(status_code, **kwargs)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """What has a sentence of its own needs no traceback."""
        if isinstance(value, HeadraceError):
            log.warning("%s", value)
        else:
            super().log_exception(typ, value, tb)

    async def do(self, plan: Operation[Any]) -> Any:
        """Carry out a plan beside Flower's loop."""
        return await ioloop.IOLoop.current().run_in_executor(None, self.application.link.do, plan)

    def answer(self, template: str, found: msgspec.Struct, **more: Any) -> None:
        """Show what was found."""
        if self._as_json:
            self.set_header("Content-Type", "application/json; charset=UTF-8")
            self.finish(msgspec.json.encode(found))
        else:
            read_only = self.application.options.read_only
            self.render(template, found=found, moment=_moment, read_only=read_only, **more)

    def text(self, name: str) -> str | None:
        """A text of the query; None where it is not given, or empty."""
        given: str = self.get_query_argument(name, "")
        return given or None

    def number(self, name: str) -> int:
        """A number of the query; 0 for what is none."""
        given = self.get_query_argument(name, "0")
        return int(given[:9]) if given[:9].isdecimal() and given.isascii() else 0


class DeadLetters(Page):
    """The letters, the newest first, and what is done with some of them."""

    async def get(self) -> None:
        """Show a page of them."""
        which = DeadLetterFilter(model=self.text("model"), reason=self.text("reason"), error=self.text("error"))
        keys = self.application.link.keys
        found = await self.do(letters.read_page(keys, parse_filter(which), self.number("start")))
        plans = self.application.letters
        self.answer(
            "letters.html",
            found,
            which=which,
            count=await self.do(plans.count()),
            reasons=get_args(Reason),
            start=self.number("start"),
            runs=lambda letter: len(counted_attempts(letter.attempts)),
            tally={name: self.number(name) for name in ("replayed", "purged", "stayed", "gone")},
            asked=bool(self.get_query_argument("asked", "")),
        )

    async def post(self) -> None:
        """Replay or purge the letters that were chosen."""
        if self.application.options.read_only:
            raise web.HTTPError(403, "Flower is read-only: start it with --allow-actions")
        ids = [one for one in self.get_body_arguments("id")[:_SELECTED] if one]
        action, version = self.get_body_argument("action", ""), self.get_body_argument("version", "") or None
        if action not in {"replay", "purge"}:
            raise InvalidInput("`action` is one of replay, purge")
        if not ids:
            raise InvalidInput("choose the letters first")
        plans, now = self.application.letters, datetime.now(UTC)
        sweep = (
            plans.replay({"ids": ids}, now, version=version, rate=None, dry_run=False, every=False)
            if action == "replay"
            else plans.purge({"ids": ids}, dry_run=False, every=False)
        )
        tally = await ioloop.IOLoop.current().run_in_executor(None, self._through, sweep)
        log.info("%s of %d dead letters by %s: %s", action, len(ids), self._who, tally)
        done = "replayed" if action == "replay" else "purged"
        stayed, gone = tally.id_in_use + tally.no_job, tally.gone + len(tally.missing)
        self.redirect(
            f"{self.reverse_url('dead')}?asked=1&{done}={tally.done}&stayed={stayed}&gone={gone}", status=303
        )

    @property
    def _who(self) -> str:
        return self.current_user if isinstance(self.current_user, str) else self.request.remote_ip or "somebody"

    def _through(self, sweep: BulkOperation) -> BulkResult:
        while not sweep.finished:
            self.application.link.do(sweep.step(0.0))
        return sweep.result


class OneLetter(Page):
    """One letter with its history, and without its message."""

    async def get(self, name: str) -> None:
        """Show it."""
        found = await self.do(letters.read_letter(self.application.link.keys, name))
        if found is None:
            raise UnknownLetter(f"there is no dead letter {name}; it may have been replayed, purged or dropped")
        self.answer("letter.html", found)


class Models(Page):
    """What is served."""

    async def get(self) -> None:
        """Show a page of models."""
        found = await self.do(served.page(self.application.link.keys, self.number("start")))
        self.answer("models.html", found)


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """One queue at one moment."""

    model: str
    queue: str
    ready: int
    #: Ready jobs by priority step, and those that a crash gave back, which run before all others.
    by_priority: dict[int, int]
    again: int
    delayed: int
    leased: int
    #: Seconds that the job which waits longest has waited; None where none does, or its id does not tell.
    oldest: float | None
    #: Jobs that end in a second, of the last ten; None where events may not be heard.
    rate: float | None
    #: Seconds that a job submitted now would wait at that rate; None where nothing moves.
    predicted_wait: float | None


class QueuePage(msgspec.Struct, frozen=True, kw_only=True):
    """All queues."""

    queues: tuple[Queue, ...]
    dead_letters: int | None


class Queues(Page):
    """How much waits, and for how long."""

    async def get(self) -> None:
        """Show the queues."""
        self.answer("queues.html", queues(await self.application.lookout.look()))


def queues(seen: Overview) -> QueuePage:
    """The queues of an overview."""
    ended = {one.model: one.succeeded + one.failed for one in seen.models or ()}
    found = []
    for one in seen.queues:
        rate = None if seen.models is None else ended.get(one.model, 0.0)
        predicted = 0.0 if not one.waiting else one.waiting / rate if rate else None
        found.append(
            Queue(
                model=one.model,
                queue=one.queue,
                ready=one.waiting,
                by_priority=one.by_priority,
                again=one.isolated,
                delayed=one.delayed,
                leased=one.leased,
                oldest=seen.waits.get(one.model),
                rate=rate,
                predicted_wait=predicted,
            )
        )
    return QueuePage(queues=tuple(found), dead_letters=seen.dead_letters)


def _status(error: HeadraceError) -> int:
    match error:
        case UnknownLetter() | UnknownModel():
            return 404
        case InvalidInput():
            return 400
        case _:
            return 503


def _moment(at_ms: int) -> str:
    """A moment, for a person: in UTC, to the second."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


HANDLERS = [
    web.url(r"/dead-letters", DeadLetters, name="dead"),
    web.url(r"/dead-letters/(.+)", OneLetter, name="letter"),
    web.url(r"/models", Models, name="models"),
    web.url(r"/queues", Queues, name="queues"),
    web.url(r"/api/dead-letters", DeadLetters),
    web.url(r"/api/dead-letters/(.+)", OneLetter),
    web.url(r"/api/models", Models),
    web.url(r"/api/queues", Queues),
]
