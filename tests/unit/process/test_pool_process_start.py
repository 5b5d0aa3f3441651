"""What a pool process would start and import is not there to start, or there before the fork."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: Prints how many threads bear the name of the process when all libraries of a worker are loaded, as those of
#: BLAS do. Arrow's allocator has one too, under a name of its own.
LOADED = """
import pathlib
import headrace_worker.app
import numpy, scipy.linalg
names = [task.read_text() for task in pathlib.Path("/proc/self/task").glob("*/comm")]
print(names.count(pathlib.Path("/proc/self/comm").read_text()))
"""
#: Prints what of these a process that prepared has imported. billiard asks by cffi where something has it loaded.
PREPARED = """
import sys, cffi
from headrace.connection.celery import create_celery_app
from headrace.settings import Settings
from headrace_worker.execution import pool_process
pool_process.prepare(create_celery_app(Settings()))
print(*({"celery.backends.redis", "pycparser.c_parser"} & set(sys.modules)))
"""


def printed(code: str) -> list[str]:
    environ = {name: text for name, text in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", code]
    return subprocess.check_output(command, env=environ, text=True, timeout=60).split()


@pytest.mark.skipif(os.cpu_count() == 1, reason="with one core no library starts threads")
def test_libraries_start_no_threads_in_a_worker():
    assert printed(LOADED) == ["1"]


def test_what_each_pool_process_would_import_is_imported_before():
    assert set(printed(PREPARED)) == {"celery.backends.redis", "pycparser.c_parser"}
