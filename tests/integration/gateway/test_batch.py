"""Files that are streamed through `:batch`."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import requests

from tests.support.claim_models import KILL
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.served_worker import Site, own, server
from tests.support.upload import Upload
from tests.support.waiting import wait_until

__all__ = ["own", "server"]  # fixtures

URL = "/v1/models/doubling:batch"
CSV = {"Content-Type": "text/csv"}
NDJSON = {"Content-Type": "application/x-ndjson"}


def as_csv(rows: int, *, start: int = 0) -> bytes:
    """Return a CSV of numbered rows."""
    lines = [f"{number},0,0" for number in range(start, start + rows)]
    return ("number,action,seconds\n" + "\n".join(lines) + "\n").encode()


def as_ndjson(rows: int) -> bytes:
    """Return NDJSON of numbered rows."""
    return b"".join(b"[%d, 0, 0]\n" % number for number in range(rows))


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def read_ndjson(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_csv_comes_back_with_its_predictions_in_its_order(http: httpx.Client) -> None:
    answer = http.post(URL, content=as_csv(25_000), headers=CSV)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    assert answer.headers["headrace-model"] == "doubling@1"
    rows = read_csv(answer.text)
    assert list(rows[0]) == ["number", "action", "seconds", "prediction", "error"]
    assert [float(row["prediction"]) for row in rows] == [2.0 * number for number in range(25_000)]


def test_a_csv_without_rows_comes_back_with_its_columns(http: httpx.Client) -> None:
    answer = http.post(URL, content=as_csv(0), headers=CSV)
    assert (answer.status_code, answer.text) == (200, "number,action,seconds,prediction,error\n")


def test_ndjson_comes_back_with_its_predictions_and_a_last_line_that_counts_them(http: httpx.Client) -> None:
    answer = http.post(URL, content=as_ndjson(3000), headers=NDJSON)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    *rows, last = read_ndjson(answer.text)
    assert [row["prediction"] for row in rows] == [2.0 * number for number in range(3000)]
    assert last == {"done": 3000, "failed": 0}


def test_a_bad_row_has_its_error_and_the_others_their_predictions(http: httpx.Client) -> None:
    body = b'[1, 0, 0]\n{"instance": [2]}\nno json\n[3, 0, 0]\n'
    *rows, last = read_ndjson(http.post(URL, content=body, headers=NDJSON).text)
    assert [row["prediction"] for row in rows] == [2.0, None, None, 6.0]
    assert rows[1]["error"].startswith("line 2: ")
    assert rows[2]["error"] == "line 3: the line is not a JSON value"
    assert last == {"done": 4, "failed": 2}
    table = read_csv(http.post(URL, content=b"a,b,c\n1,0,0\nx,0,0\n2,0\n", headers=CSV).text)
    assert [row["prediction"] for row in table] == ["2.0", "", ""]
    assert [row["error"][:7] for row in table] == ["", "line 3:", "line 4:"]


def test_a_row_whose_job_fails_has_its_error_alone(http: httpx.Client) -> None:
    body = b"[1, 0, 0]\n[2, 1, 0]\n[3, 0, 0]\n"
    assert KILL == 1
    *rows, last = read_ndjson(http.post(URL, content=body, headers=NDJSON).text)
    assert [row["prediction"] for row in rows] == [2.0, None, 6.0]
    assert last == {"done": 3, "failed": 1}


def test_curl_sends_a_file_without_any_header(gateway: RunningGateway, tmp_path: Path) -> None:
    for name, content in (("customers.csv", as_csv(40_000)), ("customers.ndjson", as_ndjson(20_000))):
        (tmp_path / name).write_bytes(content)
        command = ["curl", "-sS", "--fail", "-T", name, gateway.url + URL]
        output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert output.returncode == 0, output.stderr
        assert output.stdout.count("\n") == content.count(b"\n") + (name.endswith("ndjson"))


def test_a_client_that_reads_nothing_until_it_has_sent_all_gets_its_answer(gateway: RunningGateway) -> None:
    rows, padding = 60_000, "x" * 100

    def lines() -> Iterator[bytes]:
        yield b"a,b,c,note\n"
        for number in range(rows):
            yield f"{number},0,0,{padding}\n".encode()

    def chunks() -> Iterator[bytes]:
        content = b"".join(lines())
        for start in range(0, len(content), 50_000):
            yield content[start : start + 50_000]

    query = "?column=a&column=b&column=c"
    answer = requests.post(gateway.url + URL + query, data=chunks(), headers=CSV, timeout=60)
    assert len(answer.content) > 6_000_000
    assert answer.text.count("\n") == rows + 1
    answer = httpx.post(gateway.url + URL + query, content=chunks(), headers=CSV, timeout=60)
    assert answer.text.count("\n") == rows + 1


@pytest.fixture(scope="module")
def duplex(shared: Site) -> Iterator[RunningGateway]:
    """A gateway that answers a file while it still arrives."""
    with running_gateway(
        shared.url, shared.folder, name="duplex", HEADRACE_GATEWAY_BATCH_DUPLEX="true"
    ) as gateway:
        yield gateway


def test_the_answer_begins_when_the_whole_file_has_arrived_and_its_rows_were_predicted_before(
    gateway: RunningGateway, server: redis.Redis
) -> None:
    jobs = list(server.scan_iter("headrace:id:*"))
    with Upload(gateway, "Content-Type: application/x-ndjson") as upload:
        upload.send(b"[1, 0, 0]\n" * 1000)
        wait_until(lambda: len(list(server.scan_iter("headrace:id:*"))) > len(jobs))
        upload.expect_nothing()
        upload.send(b"[2, 0, 0]\n")
        upload.send(b"")
        assert b'{"done":1001,"failed":0}' in upload.read_until(b"0\r\n\r\n")


def test_a_mistake_is_told_before_the_whole_file_has_arrived(gateway: RunningGateway) -> None:
    with Upload(gateway, "Content-Type: text/csv") as upload:
        upload.send(b"a,b\n1,2\n")
        assert upload.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 422 ")


def test_rows_are_answered_while_the_file_still_arrives_where_that_is_allowed(duplex: RunningGateway) -> None:
    for header, begin, row in (
        ("text/csv", b"a,b,c\n", b"%d,0,0\n"),
        ("application/x-ndjson", b"", b"[%d, 0, 0]\n"),
    ):
        with Upload(duplex, f"Content-Type: {header}") as upload:
            upload.send(begin + row % 0)
            upload.read_until(b"0.0")
            for number in range(1, 3):
                upload.send(row % number)
                assert str(2.0 * number).encode() in upload.read_until(b"%.1f" % (2.0 * number))
            upload.send(b"")
            upload.read_until(b"0\r\n\r\n")


def test_a_packed_file_is_unpacked_also_in_several_members(http: httpx.Client) -> None:
    body = gzip.compress(as_ndjson(2000)) + gzip.compress(b"[7, 0, 0]\n")
    answer = http.post(URL, content=body, headers=NDJSON | {"Content-Encoding": "gzip"})
    assert read_ndjson(answer.text)[-1] == {"done": 2001, "failed": 0}


def test_a_file_may_come_as_deflate(http: httpx.Client) -> None:
    answer = http.post(
        URL, content=zlib.compress(as_ndjson(2000)), headers=NDJSON | {"Content-Encoding": "deflate"}
    )
    assert read_ndjson(answer.text)[-1] == {"done": 2000, "failed": 0}


def test_a_broken_packing_is_a_problem(http: httpx.Client) -> None:
    for packing, body in (
        ("gzip", b"no gzip"),
        ("gzip", gzip.compress(as_ndjson(10))[:-9]),
        ("gzip", zlib.compress(as_ndjson(10))),
        ("deflate", zlib.compress(as_ndjson(10))[:-1]),
        ("deflate", zlib.compress(as_ndjson(10)) + b"rest"),
    ):
        answer = http.post(URL, content=body, headers=NDJSON | {"Content-Encoding": packing})
        assert (answer.status_code, kind_of(answer)) == (400, "malformed-body")
    answer = http.post(URL, content=b"", headers=NDJSON | {"Content-Encoding": "br"})
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip, deflate")


@pytest.mark.parametrize(
    ("headers", "body", "query", "expected"),
    [
        (CSV, b"", "", (422, "invalid-input")),
        (CSV, b"a,b\n1,2\n", "", (422, "invalid-input")),
        (CSV, b"a,b,c\n1,0,\xe9\n", "", (422, "invalid-input")),
        (CSV, b"a,b,c\n", "?method=predict_proba", (422, "invalid-input")),
        (CSV, b"a,b,c\n", "?methd=predict", (400, "invalid-query")),
        (CSV, b"a,b,c\n", "?delimiter=ab", (400, "invalid-query")),
        (CSV, b"a,b,c\n", "?version=9", (404, "unknown-model")),
        ({"Content-Type": "text/csv; charset=latin1"}, b"a,b,c\n", "", (415, "unsupported-type")),
        ({"Content-Type": "text/csv; header=absent"}, b"1,0,0\n", "", (415, "unsupported-type")),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x--", "", (415, "unsupported-type")),
    ],
)
def test_a_mistake_is_a_problem_and_no_cut_answer(
    http: httpx.Client, headers: dict[str, str], body: bytes, query: str, expected: tuple[int, str]
) -> None:
    answer = http.post(URL + query, content=body, headers=headers)
    assert (answer.status_code, kind_of(answer)) == expected, answer.text
    assert "--" not in answer.json()["detail"]


def kind_of(answer: httpx.Response) -> str:
    """Return the last part of the type of a problem."""
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["type"].rpartition("/")[2])


def test_a_file_that_breaks_after_its_first_rows_cuts_the_answer_for_every_client(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    lines = [b"%d,0,0,%b\n" % (number, b"x" * 200) for number in range(50_000)]
    body = b"a,b,c,note\n" + b"".join(lines) + b"\xff\xff\n"
    path = URL + "?column=a&column=b&column=c"
    (tmp_path / "broken.csv").write_bytes(body)
    command = ["curl", "-sS", "-T", "broken.csv", gateway.url + path]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert output.returncode == 18, output.stderr
    assert output.stdout.startswith(f"a,b,c,note,prediction,error\n0,0,0,{'x' * 200},0.0,\n")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.post(gateway.url + path, data=body, headers=CSV, timeout=60)
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(gateway.url + path, content=body, headers=CSV, timeout=60)


def test_ndjson_that_breaks_has_the_problem_in_its_last_line(duplex: RunningGateway) -> None:
    with Upload(duplex, "Content-Type: application/x-ndjson") as upload:
        upload.send(b"[1, 0, 0]\n")
        upload.read_until(b"2.0")
        upload.send(b"\xff\xff\n")
        answer = upload.read_all()
    line = json.loads(answer.split(b"\r\n")[-2])
    assert line["problem"]["status"] == 422
    assert "line 2" in line["problem"]["detail"]
    assert not answer.endswith(b"0\r\n\r\n")


def test_no_outcome_of_a_file_stays_in_redis(http: httpx.Client, server: redis.Redis) -> None:
    for key in server.scan_iter("celery-task-meta-*"):
        server.delete(key)
    assert http.post(URL, content=as_ndjson(3000), headers=NDJSON).status_code == 200
    assert not list(server.scan_iter("celery-task-meta-*"))
