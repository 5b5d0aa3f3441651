"""A worker names the pools of Celery that it runs on, before Celery imports another."""

from __future__ import annotations

from importlib import import_module

import pytest

from headrace.errors import SettingError
from headrace_worker.process.pool_kinds import check_pool, find_pool


@pytest.mark.parametrize("name", ["prefork", "processes", "solo", "threads"])
def test_a_pool_that_works_is_accepted_by_name_and_by_class(name: str):
    check_pool(name)
    module = {"processes": "prefork", "threads": "thread"}.get(name, name)
    check_pool(import_module(f"celery.concurrency.{module}").TaskPool)


def test_no_pool_is_the_default():
    check_pool(None)
    check_pool("")


@pytest.mark.parametrize("name", ["gevent", "eventlet", "custom", "a.module:Pool"])
def test_another_pool_is_refused_with_those_that_work(name: str):
    with pytest.raises(SettingError, match=r"prefork .*, solo .* or threads") as caught:
        check_pool(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "pool"),
    [
        ([], None),
        (["-Q", "predict.churn"], None),
        (["--pool", "gevent"], "gevent"),
        (["--pool=gevent", "-c", "2"], "gevent"),
        (["-P", "eventlet"], "eventlet"),
        (["-Psolo"], "solo"),
        (["--pool", "solo", "--pool", "threads"], "threads"),
        (["-P"], ""),
    ],
)
def test_the_pool_is_found_among_the_options_for_celery(options: list[str], pool: str | None):
    assert find_pool(options) == pool
