"""The Python interface: a client for blocking code, a client for asyncio, their job handles and dead letters.

- `aio/client.py`: `AsyncClient`.
- `aio/job.py`: `AsyncJobHandle`, a submitted job.
- `aio/dead_letters.py`: `AsyncDeadLetters`, behind `client.dead_letters`.
- `aio/run.py`: `AsyncRunHandle`, a bulk run.
- `aio/listener.py`: `AsyncListener`, the jobs that have ended under a name. `listen_state.py` has its decisions.
- `aio/handlers.py`: runs the functions that `handlers.py` registers for ended jobs.
- `aio/session.py`: `AsyncSession`, the state that a client shares with its handles.
- `aio/predict.py`: the quick wait for the outcome of `predict`.
- `aio/connections.py`: the connections to Redis, and how commands are repeated while Redis is unreachable.
- `aio/group_commit.py`: what concurrent callers submit goes to Redis together.
- `blocking/`: the same for blocking code. `predict.py`, `connections.py`, `handlers.py` and `group_commit.py` are
  written by hand; the other files are generated from those in `aio/` by `make generate`.
- `common.py`: settings of a client, errors of a timeout.
"""

from headrace.client.aio.client import AsyncClient
from headrace.client.aio.dead_letters import AsyncDeadLetters
from headrace.client.aio.job import AsyncJobHandle
from headrace.client.aio.listener import AsyncListener
from headrace.client.aio.run import AsyncRunHandle
from headrace.client.aio.session import AsyncSession
from headrace.client.blocking.client import Client
from headrace.client.blocking.dead_letters import DeadLetters
from headrace.client.blocking.job import JobHandle
from headrace.client.blocking.listener import Listener
from headrace.client.blocking.run import RunHandle
from headrace.client.blocking.session import Session

__all__ = [
    "AsyncClient",
    "AsyncDeadLetters",
    "AsyncJobHandle",
    "AsyncListener",
    "AsyncRunHandle",
    "AsyncSession",
    "Client",
    "DeadLetters",
    "JobHandle",
    "Listener",
    "RunHandle",
    "Session",
]
