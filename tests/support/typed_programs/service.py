"""A service written against the public names alone. A type checker reads it, and its test runs it."""

from __future__ import annotations

from headrace import (
    AnyAsyncClient,
    AnyClient,
    Cancelled,
    Expired,
    Failure,
    InvalidInput,
    JobFailed,
    JobOptions,
    Outcome,
    Success,
    Timeline,
)


class Scores:
    """Scores customers with whichever client it gets."""

    def __init__(self, client: AnyClient, options: JobOptions) -> None:
        self._client, self._options = client, options

    def score(self, age: int) -> float | None:
        """Return the score of a customer, None for one that cannot be scored."""
        try:
            return float(self._client.predict("churn", {"age": age}, timeout=5, **self._options).prediction)
        except JobFailed as failure:
            return 0.0 if failure.reason == "timeout" else None
        except InvalidInput:
            return None

    def score_all(self, ages: list[int]) -> dict[str, str]:
        """Return a description of the outcome of each customer, by job id."""
        jobs = self._client.submit_many("churn", [{"age": age} for age in ages], priority=9)
        return {job.id: describe(job.outcome()) for job in self._client.as_completed(jobs, timeout=60)}

    def drop(self, job_id: str) -> tuple[bool, Timeline]:
        """Cancel a job, and return its history."""
        job = self._client.job(job_id)
        return job.cancel(unknown=False), job.explain()


async def score_async(client: AnyAsyncClient, age: int) -> float:
    """Return the score of a customer, from an asyncio service."""
    async with client:
        jobs = [await client.submit("churn", {"age": age})]
        async for job in client.as_completed(jobs, timeout=5):
            return float((await job.result()).prediction)
    raise LookupError(age)


def describe(outcome: Outcome) -> str:
    """Return an outcome in words. The type checker knows that no other outcome exists."""
    match outcome:
        case Success():
            return f"scored {outcome.prediction.prediction}"
        case Failure():
            return f"{outcome.reason}: {outcome.message}"
        case Cancelled():
            return "cancelled"
        case Expired():
            return "expired"
