"""The corner of an API server that `lookup` of a template asks: Secrets, and which kinds there are."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

_KINDS = {"resources": [{"name": "secrets", "namespaced": True, "kind": "Secret", "verbs": ["get"]}]}


@contextmanager
def serve_secrets(secrets: Mapping[str, Mapping[str, str]], folder: Path) -> Iterator[Path]:
    """Serve the Secrets of the namespace ml, also later ones in `secrets`; yield a kubeconfig in the folder."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = _answer(self.path.partition("?")[0], secrets)
            body = json.dumps(answer or {"kind": "Status", "apiVersion": "v1", "reason": "NotFound", "code": 404})
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(_kubeconfig(server.server_port)))
        yield kubeconfig
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(path: str, secrets: Mapping[str, Mapping[str, str]]) -> dict[str, Any] | None:
    if path == "/version":
        return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": []}
    if path == "/api/v1":
        return {"kind": "APIResourceList", "groupVersion": "v1", **_KINDS}
    name = path.removeprefix("/api/v1/namespaces/ml/secrets/")
    if name not in secrets:
        return None
    data = {key: base64.b64encode(value.encode()).decode() for key, value in secrets[name].items()}
    return {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": name, "namespace": "ml"}, "data": data}


def _kubeconfig(port: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
