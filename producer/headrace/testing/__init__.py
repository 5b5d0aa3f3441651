"""A client without Redis, for the tests of programs that use Headrace.

    from headrace.testing import InMemoryClient

    client = InMemoryClient({"churn": lambda instances: [0 for _ in instances]})
    assert client.predict("churn", {"age": 41}).prediction == 0
    assert client.submitted[0].instances == [{"age": 41}]

- `client.py`: `InMemoryClient`, with the methods of `headrace.Client`; it refuses the same input.
- `job.py`: `InMemoryJob`, with the methods of `headrace.JobHandle`.
- `runs.py`: `InMemoryRun`, with the methods of `headrace.RunHandle`.
- `dead_letters.py`: `InMemoryDeadLetters`, behind `client.dead_letters`.
"""

from headrace.testing.client import Answer, InMemoryClient
from headrace.testing.job import InMemoryJob
from headrace.testing.runs import InMemoryRun

__all__ = ["Answer", "InMemoryClient", "InMemoryJob", "InMemoryRun"]
