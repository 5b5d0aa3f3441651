"""Jobs that can be told apart: a number, rows that carry it, and how they are to be submitted."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from tests.chaos import model

#: Rows a job may have: the number of a row is that of its job, times this, and its place.
MOST_ROWS = 10

PREFIX = "job-"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job to submit."""

    number: int
    do: int = model.SLEEP
    amount: float = 0.0
    count: int = 1
    #: Options of submit. A job that is `cancelled` is cancelled at once.
    delay: float = 0.0
    expires: float = 0.0
    priority: int = 0
    cancelled: bool = False

    @property
    def id(self) -> str:
        return f"{PREFIX}{self.number}"

    @property
    def model(self) -> str:
        """Jobs that fail share no batch: splitting one to find them would look like running it twice."""
        return model.ALONE if self.do == model.RAISE else model.MODEL

    @property
    def rows(self) -> list[list[float]]:
        first = self.number * MOST_ROWS
        return [[first + index, self.do, self.amount / self.count] for index in range(self.count)]

    @property
    def is_plain(self) -> bool:
        """True if the job may be submitted in one call with others."""
        return (
            self.count == 1
            and self.model == model.MODEL
            and not (self.delay or self.expires or self.priority or self.cancelled)
        )


def id_of(row: float) -> str:
    """The id of the job a row belongs to."""
    return f"{PREFIX}{int(row) // MOST_ROWS}"


def is_right(job: str, predictions: list[Any]) -> bool:
    """Check that these are the predictions of this job and no other."""
    first = int(job.removeprefix(PREFIX)) * MOST_ROWS
    return predictions == [2 * (first + index) for index in range(len(predictions))]


def random_job(number: int, chance: random.Random, *, mixed: bool, longest: float) -> Job:
    """A job as producers send them: most are plain, and of every other kind there are some."""
    amount = chance.uniform(0, longest)
    kind = chance.random() if mixed else 1.0
    if kind < 0.03:
        return Job(number=number, do=model.RAISE)
    if kind < 0.06:
        return Job(number=number, amount=amount, delay=chance.uniform(0.2, 2))
    if kind < 0.08:
        return Job(number=number, amount=amount, expires=chance.uniform(0.5, 2))
    if kind < 0.10:
        return Job(number=number, amount=amount, expires=3600)
    if kind < 0.13:
        return Job(number=number, amount=amount, cancelled=True)
    if kind < 0.16:
        return Job(number=number, amount=amount, count=3)
    if kind < 0.19:
        return Job(number=number, amount=amount, priority=9)
    return Job(number=number, amount=amount)
