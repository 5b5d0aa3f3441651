"""`headrace exporter` and `headrace health`, run as processes."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from pathlib import Path

from headrace_worker.telemetry.health import Health, HealthFile


def test_the_exporter_prints_its_address_and_serves_metrics(redis_url: str) -> None:
    command = [sys.executable, "-m", "headrace.cli", "exporter", "--url", redis_url, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as exporter:
        try:
            assert exporter.stderr is not None
            address = exporter.stderr.readline().split()[-1]
            with urllib.request.urlopen(address, timeout=10) as reply:
                assert "headrace_redis_up 1.0" in reply.read().decode()
            port = address.rsplit(":", 1)[1].split("/")[0]
            second = subprocess.run([*command[:-1], port], capture_output=True, text=True, timeout=60, check=False)
            assert (second.returncode, second.stdout) == (1, "")
            assert second.stderr.startswith(
                f"headrace: cannot listen on 127.0.0.1, port {port}: Address already in"
            )
        finally:
            exporter.terminate()


def test_health_reports_by_its_exit_code(tmp_path: Path) -> None:
    def health(*options: str, file: str = str(tmp_path / "health")) -> tuple[int, str]:
        command = [sys.executable, "-m", "headrace.cli", "health", *options]
        environ = {"HEADRACE_HEALTH_FILE": file} if file else {}
        ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
        return ran.returncode, ran.stdout + ran.stderr

    assert health(file="") == (
        1,
        "headrace: set HEADRACE_HEALTH_FILE, for the worker too: it writes its state to that file\n",
    )
    assert health()[0] == 1
    file = HealthFile(str(tmp_path / "health"), Health())
    file.start()
    assert health() == (0, "the worker starts: its models are being loaded\n")
    assert health("--ready") == (1, "headrace: the worker starts: its models are being loaded\n")
    file.remove()
