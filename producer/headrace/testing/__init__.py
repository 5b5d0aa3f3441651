"""Clients without Redis, for the tests of programs that use Headrace.

    from headrace.testing import InMemoryClient

    client = InMemoryClient({"churn": lambda instances: [0 for _ in instances]})
    assert client.predict("churn", {"age": 41}).prediction == 0
    assert client.submitted[0].instances == [{"age": 41}]

- `client.py`: `InMemoryClient`, with the methods of `headrace.Client`; it refuses the same input.
- `aio_client.py`: `AsyncInMemoryClient`, with the methods of `headrace.AsyncClient`.
- `models.py`: what a model of these clients may be.
- `job.py`: `InMemoryJob`, with the methods of `headrace.JobHandle`.
- `runs.py`: `InMemoryRun`, with the methods of `headrace.RunHandle`.
- `listening.py`: `InMemoryListener`, with the methods of `headrace.Listener`, and its counterpart for asyncio.
- `dead_letters.py`: `InMemoryDeadLetters`, behind `client.dead_letters`.
- `aio_handles.py`: the same three for asyncio.

`headrace.pytest_plugin` has fixtures.
"""

from headrace.testing.aio_client import AsyncInMemoryClient
from headrace.testing.aio_handles import AsyncInMemoryDeadLetters, AsyncInMemoryJob, AsyncInMemoryRun
from headrace.testing.client import InMemoryClient
from headrace.testing.job import InMemoryJob
from headrace.testing.listening import AsyncInMemoryListener, InMemoryListener
from headrace.testing.models import Answer, Model, ModelVersion
from headrace.testing.runs import InMemoryRun

__all__ = [
    "Answer",
    "AsyncInMemoryClient",
    "AsyncInMemoryDeadLetters",
    "AsyncInMemoryJob",
    "AsyncInMemoryListener",
    "AsyncInMemoryRun",
    "InMemoryClient",
    "InMemoryJob",
    "InMemoryListener",
    "InMemoryRun",
    "Model",
    "ModelVersion",
]
