"""Hand-written objects for the tests of the runner itself."""

from __future__ import annotations

from typing import Any

#: An image with Python, which the images of the project build on.
IMAGE = "python:3.11-slim-bookworm"

#: A server: /ready is 200 from AFTER to UNTIL seconds after its start; it ends STOP seconds after SIGTERM.
SERVER = """
import http.server, os, signal, sys, threading, time
started = time.monotonic()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        after, until = float(os.environ.get("AFTER", "0")), float(os.environ.get("UNTIL", "1e9"))
        good = self.path == "/live" or after <= time.monotonic() - started <= until
        self.send_response(200 if good else 503)
        self.end_headers()
    def log_message(self, *_):
        pass
def stop(*_):
    time.sleep(float(os.environ.get("STOP", "0")))
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
print("serving", flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""


def container(*command: str, **more: Any) -> dict[str, Any]:
    return {"name": "main", "image": IMAGE, "command": list(command), **more}


def server(**more: Any) -> dict[str, Any]:
    """Return the container of the server; `env` takes a mapping."""
    environ = [{"name": name, "value": value} for name, value in more.pop("env", {}).items()]
    ports = [{"name": "http", "containerPort": 8080}]
    return container("python", "-c", SERVER, **{"env": environ, "ports": ports, **more})


def probe(path: str = "/ready", **more: Any) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "http"}, "periodSeconds": 1, **more}


def pod(main: dict[str, Any], app: str = "test", **more: Any) -> dict[str, Any]:
    """Return the template of a pod with the label `app`; `more` are fields of its spec."""
    spec = {"automountServiceAccountToken": False, "enableServiceLinks": False, "containers": [main], **more}
    return {"metadata": {"labels": {"app": app}}, "spec": spec}


def deployment(
    template: dict[str, Any], replicas: int | None = 1, name: str = "test", **more: Any
) -> dict[str, Any]:
    """Return a Deployment; `more` are fields of its spec."""
    spec = {"selector": {"matchLabels": {"app": "test"}}, "template": template, **more}
    if replicas is not None:
        spec["replicas"] = replicas
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def job(template: dict[str, Any], **more: Any) -> dict[str, Any]:
    spec = {"template": template, **more}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": spec}
