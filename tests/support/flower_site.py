"""A running Flower, as a browser sees it: requests with a login, cookies and forms."""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, NamedTuple

import redis

from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child, start_flower
from tests.support.connections import free_port

LOGIN = "ann:s3cret"


class Site(NamedTuple):
    """A running Flower and its Redis."""

    url: str
    redis: redis.Redis

    def request(
        self, path: str, *, login: str | None = LOGIN, form: Any = None, headers: Any = None, jar: Any = None
    ) -> tuple[int, str]:
        """Send a request, with the form as a POST; return status and body."""
        body = None if form is None else urllib.parse.urlencode(form, doseq=True).encode()
        request = urllib.request.Request(self.url + path, data=body, headers=headers or {})
        if login:
            request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
        opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(CookieJar() if jar is None else jar)
        )
        try:
            with opener.open(request, timeout=20) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def json(self, path: str) -> Any:
        status, body = self.request(path)
        assert status == 200, body
        return json.loads(body)

    def submit_form(self, path: str = "/dead-letters", **fields: Any) -> tuple[int, str]:
        """Send a form as a click in the page does, with the page's XSRF token; return status and body."""
        jar = CookieJar()
        _, page = self.request("/dead-letters", jar=jar)
        token = re.search(r'name="_xsrf" value="([^"]+)"', page)
        assert token, page
        return self.request(path, form={**fields, "_xsrf": token[1]}, jar=jar)


@contextmanager
def two_sites(folder: Path) -> Iterator[tuple[Site, Site]]:
    """Start two Flowers on one Redis: the first allows actions, the second is read-only."""
    children: list[Child] = []
    with EmbeddedRedis("--appendfsync", "no") as server, redis.Redis.from_url(server.url) as client:
        try:
            started = []
            for actions in ("true", "false"):
                port, own_folder = free_port(), folder / actions
                own_folder.mkdir()
                settings = {
                    "HEADRACE_FLOWER_LOGIN": LOGIN,
                    "HEADRACE_FLOWER_OPEN": "false",
                    "HEADRACE_FLOWER_ACTIONS": actions,
                }
                children.append(start_flower(server.url, own_folder, port=port, **settings))
                started.append(Site(f"http://127.0.0.1:{port}", client))
            yield started[0], started[1]
        finally:
            for child in children:
                child.stop()
