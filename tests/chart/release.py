"""A release of the chart on the played cluster, with a Redis as `make secrets` and deploy/redis.conf secure it."""

from __future__ import annotations

import subprocess
import tarfile
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import redis

from tests.chart.cluster import Cluster
from tests.chart.engine import docker, labels, start_sandbox
from tests.chart.helm import Object, render
from tests.chart.kubelet import Pod
from tests.deploy.stack import Stack

#: The image of the workers without, and with the models of the drills.
BASE, IMAGE = "headrace-worker:chart-base", "headrace-worker:chart-drill"
DRILL = Path(__file__).with_name("drill")

#: Images, credentials and models of a release, by the chart's values.
VALUES: Mapping[str, Any] = {
    "image": {"repository": IMAGE.partition(":")[0], "tag": IMAGE.partition(":")[2]},
    "redis": {"caSecret": "headrace-ca"},
    "models": {"claim": "models"},
}
#: A class of workers of which several fit on a small machine, and that may run the models of the drills.
SMALL: Mapping[str, Any] = {
    "concurrency": 1,
    "cpu": "1",
    "memory": "1Gi",
    "drain": 10,
    "trust": {"modules": ["drill"]},
}


def prepare(folder: Path) -> Stack:
    """Clone the project, make its secrets, a store with two models, and the image of the workers."""
    for path in (folder.parent, folder):
        path.chmod(0o755)  # pytest makes its folders private, but containers run as other users
    stack = Stack(folder)
    stack.clone()
    stack("make secrets")
    (folder / "example.json").write_text('[{"number": 1.0}]')
    for name, model in (("slow", "Slow"), ("heavy", "Heavy")):
        add = f"headrace models add drill:{model} --name {name} --example example.json"
        stack(add, env={"PYTHONPATH": str(DRILL)})
    stack("docker-compose build worker", timeout=600, env={"HEADRACE_WORKER_IMAGE": BASE})
    stack(f"docker build --quiet --build-arg BASE={BASE} --tag {IMAGE} {DRILL}")
    return stack


class RedisServer:
    """A Redis with TLS and the documented users, which the cluster's pods reach as `redis`.

    Its address outlives its restarts, as that of a Service does.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.name = f"{cluster.name}-redis"
        self._cluster = cluster
        self._secrets = folder / "secrets"
        image, network = "redis:7-bookworm", cluster.network
        self._address = start_sandbox(f"{self.name}-network", image, network, "--network-alias", "redis")
        files = {"ca.pem": "ca", "redis.pem": "redis_cert", "redis.key": "redis_key", "users.acl": "users"}
        mounts = [f"--volume={self._secrets / source}:/run/secrets/{name}:ro" for source, name in files.items()]
        docker(
            *("create", "--name", self.name, "--network", f"container:{self.name}-network", *labels(), *mounts),
            *(f"--volume={folder / 'deploy/redis.conf'}:/etc/redis/redis.conf:ro", image),
            *("redis-server", "/etc/redis/redis.conf"),
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.stop()  # first: a worker that cannot resolve the name of Redis takes its whole grace to end
        docker("rm", "--force", "--volumes", self.name, f"{self.name}-network")

    def start(self) -> None:
        docker("start", self.name)

    def stop(self) -> None:
        """Take Redis away, at once."""
        docker("kill", self.name)

    def url(self, user: str) -> str:
        """Return the address for a client on the host."""
        password = (self._secrets / f"{user}.password").read_text()
        options = f"ssl_ca_certs={self._secrets / 'ca.pem'}&ssl_check_hostname=false"
        return f"rediss://{user}:{password}@{self._address}:6379/0?{options}"

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """Connect as administrator."""
        with redis.Redis.from_url(self.url("admin")) as client:
            yield client

    def copy_data(self, folder: Path) -> None:
        """Copy its append-only files into a folder."""
        copied = subprocess.run(["docker", "cp", f"{self.name}:/data", "-"], capture_output=True, check=True)
        with tarfile.open(fileobj=BytesIO(copied.stdout)) as archive:
            archive.extractall(folder, filter="data")

    def secrets(self) -> list[Object]:
        """Return the Secrets that the chart refers to."""
        urls = {path.name: path for path in (*self._secrets.glob("*.url"), self._secrets / "flower.login")}
        return [_secret("headrace-redis", urls), _secret("headrace-ca", {"ca.pem": self._secrets / "ca.pem"})]


def _secret(name: str, files: Mapping[str, Path]) -> Object:
    data = {key: b64encode(path.read_bytes()).decode() for key, path in files.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


class Release:
    """A release, which is installed, upgraded and tested as Helm does it."""

    def __init__(self, cluster: Cluster, values: Mapping[str, Any]) -> None:
        self.cluster = cluster
        self._values = {**VALUES, **values}

    def render(self, **values: Any) -> list[Object]:
        return render({**self._values, **values})

    def run_hooks(self, objects: list[Object], hook: str) -> list[Pod]:
        """Run the Jobs of a hook to their success."""
        return [pod for item in _hooked(objects, hook) for pod in self.cluster.run_job(item)]

    def apply(self, objects: list[Object]) -> None:
        self.cluster.apply([item for item in objects if not _hooks(item)])

    def test(self) -> list[Pod]:
        """Run the pods of `helm test` to their end."""
        pods = []
        for item in _hooked(self.render(), "test"):
            name = item["metadata"]["name"]
            pods.append(self.cluster.run_pod(name, item, 150))
        return pods


def _hooked(objects: list[Object], hook: str) -> list[Object]:
    return [item for item in objects if hook in _hooks(item)]


def _hooks(item: Object) -> list[str]:
    return [
        name for name in (item["metadata"].get("annotations") or {}).get("helm.sh/hook", "").split(",") if name
    ]
