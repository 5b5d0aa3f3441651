"""Jobs with a number that their rows carry, and with options of their submission."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from tests.chaos import model

#: Rows of a job at most. The number of a row is its job's number times this, plus its index.
MAX_ROWS = 10

PREFIX = "job-"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job to submit."""

    number: int
    do: int = model.SLEEP
    amount: float = 0.0
    row_count: int = 1
    #: Options of submit. A `cancelled` job is cancelled right after its submission.
    delay: float = 0.0
    expires: float = 0.0
    priority: int = 0
    cancelled: bool = False

    @property
    def id(self) -> str:
        return f"{PREFIX}{self.number}"

    @property
    def model(self) -> str:
        """The model's name. Jobs that fail share no batch: splitting one would look like running jobs twice."""
        return model.SINGLE_MODEL if self.do == model.RAISE else model.MODEL

    @property
    def rows(self) -> list[list[float]]:
        first = self.number * MAX_ROWS
        return [[first + index, self.do, self.amount / self.row_count] for index in range(self.row_count)]

    @property
    def is_plain(self) -> bool:
        """True if the job may be submitted in one call with others."""
        return (
            self.row_count == 1
            and self.model == model.MODEL
            and not (self.delay or self.expires or self.priority or self.cancelled)
        )


def id_of_row(row: float) -> str:
    """Return the id of the job of a row."""
    return f"{PREFIX}{int(row) // MAX_ROWS}"


def are_predictions_of(job: str, predictions: list[Any]) -> bool:
    """Return True if these are the predictions of this job."""
    first = int(job.removeprefix(PREFIX)) * MAX_ROWS
    return predictions == [2 * (first + index) for index in range(len(predictions))]


def random_job(number: int, rng: random.Random, *, mixed: bool, longest: float) -> Job:
    """Return a random job of a producer: most are plain, and a few are of each other kind."""
    amount = rng.uniform(0, longest)
    kind = rng.random() if mixed else 1.0
    if kind < 0.03:
        return Job(number=number, do=model.RAISE)
    if kind < 0.06:
        return Job(number=number, amount=amount, delay=rng.uniform(0.2, 2))
    if kind < 0.08:
        return Job(number=number, amount=amount, expires=rng.uniform(0.5, 2))
    if kind < 0.10:
        return Job(number=number, amount=amount, expires=3600)
    if kind < 0.13:
        return Job(number=number, amount=amount, cancelled=True)
    if kind < 0.16:
        return Job(number=number, amount=amount, row_count=3)
    if kind < 0.19:
        return Job(number=number, amount=amount, priority=9)
    return Job(number=number, amount=amount)
