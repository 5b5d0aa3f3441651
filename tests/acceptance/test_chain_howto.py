"""The examples of docs/how-to/chain-jobs.md run as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from headrace_worker.local.demo_models import add_demo_models
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child, start_worker
from headrace_worker.store.store import Store
from tests.support import ROOT
from tests.support.waiting import wait_until

PAGE = ROOT / "docs" / "how-to" / "chain-jobs.md"


def test_the_examples_of_the_page_run(tmp_path: Path) -> None:
    tasks, *examples = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) == 4
    (tmp_path / "shop.py").write_text(tasks)
    (tmp_path / "examples.py").write_text("from shop import *\n\n" + "\n".join(examples))
    add_demo_models(Store(tmp_path / "models"))
    with EmbeddedRedis("--appendfsync", "no") as redis:
        environ = {"REDIS_URL": redis.url, "PYTHONPATH": str(tmp_path)}
        worker = start_worker(redis.url, tmp_path / "models", tmp_path, concurrency=1)
        ordinary = Child(
            "ordinary", ["celery", "-A", "shop", "worker", "-c", "1", "-l", "INFO"], environ, tmp_path / "log"
        )
        try:
            wait_until(lambda: ordinary.check() or "ready." in ordinary.log.read_text(), 60)
            completed = subprocess.run(
                [sys.executable, "examples.py"],
                cwd=tmp_path,
                env={**os.environ, **environ},
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert completed.returncode == 0, completed.stderr
        finally:
            ordinary.stop()
            worker.stop()
