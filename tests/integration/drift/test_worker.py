"""A running worker counts its jobs for drift."""

from __future__ import annotations

import json
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import skops.io
from sklearn.linear_model import LinearRegression

from headrace import Client
from headrace.connection.connect import connect
from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace_worker.drift.psi import ColumnDrift, measure_drift
from headrace_worker.local.stack import start_worker
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support.connections import free_port
from tests.support.waiting import wait_until


def test_a_worker_counts_its_predictions_and_shows_their_drift(redis_url: str, tmp_path: Path):
    rows = [[float(row)] for row in range(200)]
    skops.io.dump(LinearRegression().fit(rows, [row[0] for row in rows]), tmp_path / "model.skops")
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    store = Store(tmp_path / "models")
    manifest = package(
        store, tmp_path / "model.skops", name="drifting", example=tmp_path / "rows.json", runtime="sklearn"
    )
    port = free_port()
    worker = start_worker(redis_url, store.path, tmp_path, concurrency=1, HEADRACE_METRICS_PORT=str(port))
    try:
        with Client(redis_url) as client, connect(Settings(redis_url=redis_url)) as server:
            for _ in range(3):
                client.predict("drifting", instances=[[500.0]] * 20, timeout=20)

            def columns() -> tuple[ColumnDrift, ...]:
                drift = measure_drift(server, Keys(), manifest, datetime.now(UTC))
                assert drift is not None
                return drift if drift[0].rows == 60 else ()

            drift = wait_until(columns, 20)
            assert [(column.name, column.rows, column.verdict) for column in drift] == [
                ("0", 60, "drifted"),
                ("prediction", 60, "drifted"),
            ]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
            metrics = reply.read().decode()
        assert (
            f'headrace_drift_psi{{column_kind="feature",model="drifting",name="0",version="1"}} {drift[0].psi}'
            in metrics
        )
    finally:
        worker.stop()
