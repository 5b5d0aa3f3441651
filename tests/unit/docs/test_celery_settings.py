"""Every setting of Celery that concerns the broker, the results or the worker was looked at: the page has it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from celery.app.defaults import NAMESPACES, flatten

from headrace import Settings
from headrace.connection.celery import create_celery_app
from headrace_worker.app import app
from tests.support import ROOT

PAGE = ROOT / "docs" / "reference" / "celery-settings.md"
#: The first word of the settings that the page lists.
NAMES = {"broker", "control", "event", "redis", "result", "worker"}
#: Settings whose value is from those of Headrace, and which have Celery's default in the tests' environment.
DEPENDS = {"broker_use_ssl", "redis_backend_use_ssl", "worker_max_memory_per_child", "result_expires"}


def rows(title: str) -> Iterator[tuple[list[str], str]]:
    """Yield the settings and the second cell of each row of a table."""
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert section
    for line in section[1].splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            yield re.findall(r"`(\w+)`", cells[0]), cells[1]


def defaults() -> dict[str, object]:
    return {name: option.default for name, option in flatten(NAMESPACES) if name.partition("_")[0] in NAMES}


def test_the_page_has_every_setting_once_and_no_other() -> None:
    titles = ("Chosen", "Left as they are, with effect", "Without effect on Redis")
    listed = [name for title in titles for names, _ in rows(title) for name in names]
    assert sorted(listed) == sorted(defaults())


def test_the_chosen_settings_have_the_values_of_the_page() -> None:
    for names, value in rows("Chosen"):
        for name in names:
            if name not in DEPENDS:
                assert app.conf[name] != defaults()[name], name
            if value.startswith("`") and not value.startswith("`HEADRACE"):
                assert app.conf[name] == ast.literal_eval(value.strip("`")), name


def test_all_other_settings_have_celerys_default() -> None:
    for title in ("Left as they are, with effect", "Without effect on Redis"):
        for names, _ in rows(title):
            for name in names:
                assert app.conf[name] == defaults()[name], name


def test_the_timeouts_of_the_page_are_those_of_the_settings() -> None:
    settings = Settings(command_timeout=3, connect_timeout=2, result_ttl=60)
    conf = create_celery_app(settings).conf
    assert (conf.redis_socket_timeout, conf.redis_socket_connect_timeout, conf.result_expires) == (3, 2, 60)
