"""The end of a gateway: waits are answered, and a rolling restart under load loses no job and no wait."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from headrace import Client
from tests.support.balancer import running_balancer
from tests.support.claim_models import SLEEP
from tests.support.connections import free_port
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.served_worker import KEYS, Site
from tests.support.waiting import wait_until

PREDICT = "/v1/models/doubling:predict"
CALLERS = 16


@pytest.mark.parametrize("processes", ["1", "2"])
def test_waits_end_with_the_place_of_their_job_when_the_gateway_is_told_to_end(
    shared: Site, tmp_path: Path, processes: str
) -> None:
    jobs = [f"waits-{processes}-{number}" for number in range(3)]
    answers: list[httpx.Response] = []
    with (
        Client(shared.url) as client,
        redis.Redis.from_url(shared.url) as server,
        running_gateway(shared.url, tmp_path, HEADRACE_GATEWAY_PROCESSES=processes) as gateway,
    ):

        def predict(job: str) -> None:
            with gateway.client(timeout=30) as http:
                body, headers = {"instances": [[2, 0, 0]]}, {"Idempotency-Key": job}
                answers.append(http.post("/v1/models/single:predict", json=body, headers=headers))

        shared.pause("single")
        threads = [threading.Thread(target=predict, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(server.exists(KEYS.job(job)) for job in jobs))
        gateway.child.process.terminate()
        for thread in threads:
            thread.join()
        assert gateway.child.process.wait(15) == 0
        client.resume("single")
        assert [answer.status_code for answer in answers] == [202, 202, 202]
        assert {answer.headers["location"] for answer in answers} == {f"/v1/jobs/{job}" for job in jobs}
        assert [client.job(job).result(timeout=30).predictions for job in jobs] == [[4.0]] * 3


class Replica:
    """A gateway that is restarted on its port."""

    def __init__(self, site: Site, folder: Path, name: str) -> None:
        self._site, self._folder, self._name = site, folder, name
        self.port = free_port()
        self._stack = contextlib.ExitStack()
        self._gateway: RunningGateway | None = None

    def start(self) -> None:
        """Start the gateway, and return once it answers."""
        context = running_gateway(
            self._site.url, self._folder, name=self._name, HEADRACE_GATEWAY_PORT=str(self.port)
        )
        self._gateway = self._stack.enter_context(context)

    def restart(self) -> int:
        """End the gateway and start it again. Return its exit code."""
        assert self._gateway is not None
        self._gateway.child.process.terminate()
        code = self._gateway.child.process.wait(20)
        self._stack.close()
        self.start()
        return code

    def close(self) -> None:
        """End the gateway."""
        self._stack.close()


@pytest.fixture
def replicas(shared: Site, tmp_path: Path) -> Iterator[list[Replica]]:
    """Two gateways."""
    replicas = [Replica(shared, tmp_path, name) for name in ("left", "right")]
    try:
        for replica in replicas:
            replica.start()
        yield replicas
    finally:
        for replica in replicas:
            replica.close()


async def test_a_rolling_restart_under_load_loses_no_job_and_no_wait(
    shared: Site, replicas: list[Replica]
) -> None:
    is_over, answers = asyncio.Event(), Counter[object]()
    predicted: dict[float, object] = {}

    async def call(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            while not is_over.is_set():
                (row,) = shared.rows(1, SLEEP, 0.05)
                predicted[row[0]] = await _predict(http, row, answers)

    async with running_balancer([replica.port for replica in replicas]) as url:
        callers = [asyncio.ensure_future(call(url)) for _ in range(CALLERS)]
        codes = []
        for replica in replicas * 2:
            await asyncio.sleep(0.5)
            codes.append(await asyncio.to_thread(replica.restart))
        is_over.set()
        await asyncio.gather(*callers)
    assert codes == [0, 0, 0, 0]
    assert predicted == {number: [2 * number] for number in predicted}
    assert {202, 503} <= set(answers)  # waits were ended, and requests were refused
    runs = Counter(number for batch in shared.predict_calls([[n, 0, 0] for n in predicted]) for number in batch)
    assert [runs[int(number)] for number in predicted] == [1] * len(predicted)


async def _predict(http: httpx.AsyncClient, row: list[float], answers: Counter[object]) -> object:
    """Return the predictions of a row, as a caller gets them who repeats what was refused or cut."""
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    while True:
        try:
            answer = await http.post(PREDICT, json={"instances": [row]}, headers=headers)
            if answer.status_code == 202:
                answers[202] += 1
                answer = await _poll(http, answer.headers["location"])
            answers[answer.status_code] += 1
            if answer.status_code == 200:
                return answer.json()["predictions"]
            assert answer.status_code == 503, answer.text
        except httpx.TransportError as error:
            answers[type(error).__name__] += 1
        await asyncio.sleep(0.05)


async def _poll(http: httpx.AsyncClient, location: str) -> httpx.Response:
    """Return a job once it has its outcome, or the refusal of a gateway that ends."""
    while True:
        answer = await http.get(location, headers={"Prefer": "wait=20"})
        if answer.status_code != 200 or answer.json()["status"] == "success":
            return answer
        await asyncio.sleep(0.05)


def test_a_wait_ends_when_its_caller_hangs_up_and_the_job_goes_on(shared: Site, tmp_path: Path) -> None:
    job, body = "hangs-up", b'{"instances": [[2, 0, 0]]}'
    head = f"POST /v1/models/single:predict HTTP/1.1\r\nHost: gateway\r\nIdempotency-Key: {job}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with (
        Client(shared.url) as client,
        redis.Redis.from_url(shared.url) as server,
        running_gateway(
            shared.url, tmp_path, HEADRACE_GATEWAY_WAIT="600", HEADRACE_GATEWAY_WAIT_MAX="600"
        ) as gateway,
    ):
        shared.pause("single")
        try:
            with socket.create_connection(("127.0.0.1", httpx.URL(gateway.url).port or 0)) as connection:
                connection.sendall(head.encode() + body)
                wait_until(lambda: server.exists(KEYS.job(job)))
            wait_until(lambda: '"status":499' in gateway.child.log.read_text())
        finally:
            client.resume("single")
        assert client.job(job).result(timeout=30).predictions == [4.0]
