"""A pool process starts no threads of libraries, and needs to import nothing that the main process can import."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: Prints the number of threads that have the name of the process when all libraries of a worker are loaded. The
#: threads of BLAS have that name; the thread of Arrow's allocator has a name of its own.
COUNT_THREADS = """
import pathlib
import headrace_worker.app
import numpy, scipy.linalg
names = [task.read_text() for task in pathlib.Path("/proc/self/task").glob("*/comm")]
print(names.count(pathlib.Path("/proc/self/comm").read_text()))
"""
#: Prints the modules, out of two, that prepare() has imported. billiard uses cffi if something has imported it.
LIST_MODULES = """
import sys, cffi
from headrace.connection.celery import create_celery_app
from headrace.settings import Settings
from headrace_worker.execution import pool_process
pool_process.prepare(create_celery_app(Settings()))
print(*({"celery.backends.redis", "pycparser.c_parser"} & set(sys.modules)))
"""


def words_printed_by(code: str) -> list[str]:
    environ = {name: text for name, text in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", code]
    return subprocess.check_output(command, env=environ, text=True, timeout=60).split()


@pytest.mark.skipif(os.cpu_count() == 1, reason="with one core no library starts threads")
def test_libraries_start_no_threads_in_a_worker():
    assert words_printed_by(COUNT_THREADS) == ["1"]


def test_the_main_process_imports_what_each_pool_process_would_import():
    assert set(words_printed_by(LIST_MODULES)) == {"celery.backends.redis", "pycparser.c_parser"}
