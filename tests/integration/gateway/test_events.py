"""Events of jobs as a plain reader gets them."""

from __future__ import annotations

import httpx
import redis

from headrace import Client
from tests.support.claim_models import SLEEP
from tests.support.event_reader import read_events
from tests.support.gateway import RunningGateway
from tests.support.served_worker import Site, client, own, server
from tests.support.waiting import wait_until

__all__ = ["client", "own", "server"]  # fixtures


def test_a_job_that_runs_for_long_is_queued_then_running_then_a_success(
    http: httpx.Client, client: Client, shared: Site
) -> None:
    rows = shared.rows(1, SLEEP, 6)
    job = client.submit("doubling", rows[0])
    with http.stream("GET", f"/v1/jobs/{job.id}/events") as answer:
        events = list(read_events(answer))
    assert [event.name for event in events] == ["waiting", "running", "success"]
    assert [event.id for event in events] == ["waiting", "running", "success"]
    assert {event.job["id"] for event in events} == {job.id}
    assert events[-1].job["predictions"] == [2 * rows[0][0]]


def test_an_answer_is_neither_stored_nor_buffered_on_its_way(http: httpx.Client, client: Client) -> None:
    job = client.submit("doubling", [2, 0, 0])
    job.outcome(30)
    answer = http.get(f"/v1/jobs/{job.id}/events")
    assert answer.text.startswith("retry: 2000\n\n")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-store", "no")
    head = http.head(f"/v1/jobs/{job.id}/events")
    assert (head.status_code, head.headers["content-type"]) == (200, answer.headers["content-type"])


def test_a_reader_that_has_the_outcome_is_told_to_stop(http: httpx.Client, client: Client) -> None:
    job = client.submit("doubling", [2, 0, 0])
    job.outcome(30)
    answer = http.get(f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": "success"})
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_status_that_the_reader_has_is_not_repeated(http: httpx.Client, client: Client) -> None:
    job = client.submit("doubling", [2, 0, 0], delay=1.5)
    with http.stream("GET", f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": "waiting"}) as answer:
        assert [event.name for event in read_events(answer)] == ["success"]


def test_a_job_that_is_cancelled_while_it_waits_tells_so(http: httpx.Client, client: Client) -> None:
    job = client.submit("doubling", [2, 0, 0], delay=600)
    with http.stream("GET", f"/v1/jobs/{job.id}/events") as answer:
        events = read_events(answer)
        assert next(events).name == "waiting"
        assert job.cancel()
        assert [event.name for event in events] == ["cancelled"]


def test_the_outcomes_of_many_jobs_come_as_they_end(http: httpx.Client, client: Client) -> None:
    jobs = client.submit_many("doubling", [[number, 0, 0] for number in range(200)])
    later = client.submit("doubling", [7, 0, 0], delay=2)
    client.submit("doubling", [8, 0, 0]).outcome(30)
    with http.stream("GET", "/v1/events", params={"job": [job.id for job in [later, *jobs]]}) as answer:
        events = list(read_events(answer))
    assert {event.name for event in events} == {"outcome"}
    assert sorted(event.job["id"] for event in events) == sorted(job.id for job in [later, *jobs])
    assert events[-1].job == {
        "id": later.id,
        "status": "success",
        "model": "doubling",
        "version": "1",
        "predictions": [14.0],
    }


def test_a_reader_that_connects_again_gets_only_the_outcomes_that_it_lacks(
    http: httpx.Client, client: Client
) -> None:
    jobs = client.submit_many("doubling", [[number, 0, 0] for number in range(20)])
    later = client.submit("doubling", [7, 0, 0], delay=1.5)
    query = {"job": [job.id for job in [*jobs, later]]}
    with http.stream("GET", "/v1/events", params=query) as answer:
        events = read_events(answer)
        first = [next(events) for _ in range(7)]
    with http.stream("GET", "/v1/events", params=query, headers={"Last-Event-ID": first[-1].id}) as answer:
        second = list(read_events(answer))
    received = [event.job["id"] for event in [*first, *second]]
    assert sorted(received) == sorted(query["job"])
    assert http.get("/v1/events", params=query, headers={"Last-Event-ID": second[-1].id}).status_code == 204


def test_ids_of_other_streams_and_nonsense_lose_no_outcome(http: httpx.Client, client: Client) -> None:
    job = client.submit("doubling", [2, 0, 0])
    job.outcome(30)
    for last in ("success", "fffff", "-1", "0x1", "9" * 5000):
        answer = http.get("/v1/events", params={"job": job.id}, headers={"Last-Event-ID": last})
        assert answer.text.count("event: outcome") == 1, last


def test_a_job_that_nobody_submitted_is_a_problem_before_the_stream_begins(
    http: httpx.Client, client: Client
) -> None:
    job = client.submit("doubling", [2, 0, 0])
    for answer in (
        http.get("/v1/jobs/no-such-job/events"),
        http.get("/v1/jobs/%20/events"),
        http.get("/v1/events", params={"job": [job.id, "no-such-job"]}),
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_a_stream_of_no_job_or_of_too_many_is_refused(http: httpx.Client) -> None:
    assert http.get("/v1/events").status_code == 400
    assert http.get("/v1/events", params={"job": [f"job-{number}" for number in range(1001)]}).status_code == 400


def test_a_thousand_streams_need_no_connection_each_and_leave_no_subscription(
    gateway: RunningGateway, client: Client, server: redis.Redis
) -> None:
    job = client.submit("doubling", [2, 0, 0], delay=600)
    channel = f"celery-task-meta-{job.id}"
    connections = len(server.client_list())
    with httpx.Client(base_url=gateway.url, limits=httpx.Limits(max_connections=None), timeout=30) as many:
        requests = [many.build_request("GET", f"/v1/jobs/{job.id}/events") for _ in range(200)]
        answers = [many.send(request, stream=True) for request in requests]
        streams = [answer.iter_lines() for answer in answers]  # httpx closes a connection whose iterator is gone
        assert all(next(lines) for lines in streams)
        wait_until(lambda: server.pubsub_numsub(channel)[0][1] == 1)
        assert len(server.client_list()) - connections < 20
        for answer in answers:
            answer.close()
    wait_until(lambda: server.pubsub_numsub(channel)[0][1] == 0)
    job.cancel()
