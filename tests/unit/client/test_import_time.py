"""`import headrace` takes milliseconds and imports nothing heavy; a client imports no Celery."""

from __future__ import annotations

import subprocess
import sys

import pytest

import headrace

HEAVY = ("redis", "celery", "kombu", "numpy", "pandas", "sklearn", "flower", "asyncio", "click")


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return {name.partition(".")[0] for name in process.stdout.split()}


def test_importing_headrace_imports_nothing_heavy():
    assert modules_after("import headrace").isdisjoint(HEAVY)


def test_a_client_imports_neither_celery_nor_numpy():
    loaded = modules_after("import headrace; headrace.Client('redis://127.0.0.1:1', check=False)")
    assert loaded.isdisjoint({"celery", "kombu", "numpy", "sklearn"})


def test_importing_headrace_is_quicker_than_importing_redis():
    script = (
        "import time; start = time.process_time(); import headrace; middle = time.process_time(); import redis\n"
        "print((middle - start) / (time.process_time() - middle))"
    )
    ratio = min(
        float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60).stdout)
        for _ in range(3)
    )
    assert ratio < 0.5  # 0.1 as a rule


def test_every_public_name_can_be_imported():
    for name in headrace.__all__:
        value = getattr(headrace, name)
        assert getattr(value, "__name__", name) == name  # a union has no name
    assert set(headrace.__all__) <= set(dir(headrace))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = headrace.Nothing
