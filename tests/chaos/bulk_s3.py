"""The scenario of a bulk run into an S3 that fails: error answers, and connections that are cut."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headrace import Client
from tests.chaos.bulk_model import KEY, MODEL
from tests.chaos.bulk_site import TABLE, BulkSite
from tests.chaos.environment import Environment
from tests.chaos.proxy import Proxy
from tests.chaos.scenario import scenario
from tests.support.s3_server import BUCKET, S3

#: Files of the table, seconds of a call, and workers.
_FILES, _SECONDS, _WORKERS = 24, 0.1, 2
#: The share of requests that are answered with an error, and seconds between two cuts of all connections.
_ERROR_SHARE, _CUT_SECONDS = 0.2, 1.0
_ERRORS = ("500 Internal Server Error", "503 Slow Down")
#: Seconds of faults, after which the S3 works, and how often the run may be resumed: it must not need luck to end.
_LONGEST_SECONDS, _MOST_ROUNDS = 40.0, 5


class FailingS3(S3):
    """An S3 that answers a share of the requests with an error while it `is_failing`."""

    def __init__(self, choices: random.Random) -> None:
        self.is_failing, self.errors, self._choices = False, 0, choices
        super().__init__()

    def _respond(self, environ: dict[str, Any], start_response: Any) -> Any:
        if self.is_failing and self._choices.random() < _ERROR_SHARE:
            self.errors += 1
            # The body was not read, so the connection cannot be used again.
            start_response(self._choices.choice(_ERRORS), [("Content-Length", "0"), ("Connection", "close")])
            return [b""]
        return super()._respond(environ, start_response)


@scenario(29, "bulk run: an S3 that fails", long=1, short=1, resumed=True)
def bulk_s3_fails(env: Environment) -> None:
    """The S3 with the output answers every fifth request with 500 or 503, and cuts all connections each second."""
    site = BulkSite(env, _FILES, seconds=_SECONDS)
    expected = site.undisturbed(["stored"])["stored"]
    server = FailingS3(env.random)
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        proxy = stack.enter_context(Proxy(server.port))
        server.empty()
        environ = server.environ | {"AWS_ENDPOINT_URL": f"http://{proxy.host}:{proxy.port}"}
        locations = f"in={site.inputs}:r,out=s3://{BUCKET}/out:w"
        env.start_workers(_WORKERS, **site.settings(HEADRACE_LOCATIONS=locations), **environ)
        env.submit(env.jobs(5))
        with Client(env.url) as client, _failing(server, proxy) as cuts:
            run = client.bulk(MODEL, TABLE, "out:stored", name="stored", key=KEY)
            rounds = 1
            while site.wait(run).state == "failure" and rounds < _MOST_ROUNDS:
                rounds += 1
                run.resume()
        env.expect(site.progress("stored").state == "success", f"the run ended as {site.progress('stored')}")
        _download(site.outputs)
    env.expect(server.errors > 0, "no request was answered with an error")
    site.expect_equal("stored", expected)
    site.expect_rows("stored")
    env.notes.append(
        f"{server.errors} error answers, {len(cuts)} times all connections cut, {rounds} rounds of the run"
    )


@contextlib.contextmanager
def _failing(server: FailingS3, proxy: Proxy) -> Iterator[list[int]]:
    """Let the server fail during the block, at most _LONGEST_SECONDS. Yields the connections of each cut."""
    cuts: list[int] = []
    stopped = threading.Event()

    def cut() -> None:
        while not stopped.wait(_CUT_SECONDS) and len(cuts) * _CUT_SECONDS < _LONGEST_SECONDS:
            cuts.append(proxy.cut())
        server.is_failing = False

    thread = threading.Thread(target=cut, name="chaos-s3", daemon=True)
    server.is_failing = True
    thread.start()
    try:
        yield cuts
    finally:
        stopped.set()
        thread.join(10)


def _download(outputs: Path) -> None:
    """Write the objects below `out` as files."""
    from moto.s3.models import s3_backends

    bucket = s3_backends["123456789012"]["aws"].buckets[BUCKET]
    for name, key in bucket.keys.items():
        path = outputs / name.removeprefix("out/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(key.value)
