"""Kubelet, played on the Docker engine: the network, the volumes and the containers of a pod.

A sandbox holds the pod's network and volumes, so its address and its files outlive a restart of a container.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chart.engine import docker, labels, start_sandbox
from tests.chart.fields import Refused
from tests.chart.pod_spec import Container, PodSpec
from tests.chart.running import BACK_OFF, End, RunningContainer, Sandbox
from tests.chart.volumes import Volume


@dataclass(frozen=True)
class Node:
    """The things that a pod needs of its machine and its namespace."""

    network: str
    #: A second network, for pods that may connect to what is outside of the cluster.
    outside: str = ""
    #: The folder of each PersistentVolumeClaim.
    claims: Mapping[str, Path] = field(default_factory=dict)
    back_off: Sequence[float] = BACK_OFF


class Pod:
    """A pod that runs in a thread until it is deleted, or its containers have completed."""

    def __init__(self, name: str, spec: PodSpec, node: Node, aliases: Sequence[str] = ()) -> None:
        self.name, self.spec, self.node = name, spec, node
        self.address = ""
        self.containers: list[RunningContainer] = []
        self._error: Exception | None = None
        self._aliases = aliases
        self._deleted = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def deleted(self) -> bool:
        return self._deleted.is_set()

    @property
    def restarts(self) -> int:
        return sum(container.restarts for container in self.containers)

    @property
    def ends(self) -> list[End]:
        """The ends of its containers, in their order; a restart followed all but the last of each."""
        return [end for container in self.containers for end in container.ends]

    @property
    def error(self) -> Exception | None:
        """The failure of the runner itself, such as a mount that the engine refuses."""
        return next((item.error for item in self.containers if item.error is not None), self._error)

    @property
    def succeeded(self) -> bool:
        """True if each container has ended with 0."""
        completed = [container.ends[-1].exit_code for container in self.containers if container.ends]
        return not self.running and completed == [0] * len(self.spec.containers)

    def available(self, seconds: float = 0) -> bool:
        """Return whether all its containers have been ready for so many seconds, without a break."""
        ready = [container.ready_since for container in self.containers]
        if self.deleted or len(ready) < len(self.spec.containers):
            return False
        return all(since is not None and time.monotonic() - since >= seconds for since in ready)

    def delete(self) -> None:
        """End the pod: SIGTERM, and SIGKILL after the grace period. Returns at once."""
        self._deleted.set()

    def join(self, seconds: float) -> None:
        """Wait until the pod has ended."""
        self._thread.join(seconds)
        assert not self.running, f"{self.name} has not ended within {seconds} s"

    def execute(self, *command: str) -> str:
        """Run a command in the first container; return its standard output."""
        return docker("exec", self.containers[0].name, *command)

    def log(self) -> str:
        return "".join(container.log() for container in self.containers)

    def _run(self) -> None:
        volumes = {name: f"{self.name}-{name}" for name in self.spec.volumes}
        try:
            self._start_sandbox(volumes)
            sandbox = Sandbox(
                self.name,
                self.address,
                self.spec.restart_policy,
                self.spec.grace,
                self.node.back_off,
                self._deleted,
            )
            mounts = [self._mounts(container, volumes) for container in self.spec.containers]
            for container, options in zip(self.spec.containers, mounts, strict=True):
                self.containers.append(RunningContainer(container, sandbox, options))
            for container in self.containers:
                container.join()
        except Exception as error:  # noqa: BLE001  # raised by who waits for the pod
            self._error = error
        finally:
            for command in (
                ["rm", "--volumes", "--force", self.name],
                ["volume", "rm", "--force", *volumes.values()],
            ):
                subprocess.run(["docker", *command], capture_output=True)

    def _start_sandbox(self, volumes: Mapping[str, str]) -> None:
        """Start the sandbox, and fill the volumes in it."""
        mounts = []
        for name, volume in self.spec.volumes.items():
            if volume.kind != "claim":
                size = f"size={volume.size}," if volume.kind == "memory" and volume.size else ""
                memory = ("--opt=type=tmpfs", "--opt=device=tmpfs", f"--opt=o={size}mode=0777")
                docker("volume", "create", *labels(), *(memory if volume.kind != "disk" else ()), volumes[name])
                mounts += ["--volume", f"{volumes[name]}:/volumes/{name}"]
        aliases = [option for alias in self._aliases for option in ("--network-alias", alias)]
        image = self.spec.containers[0].image
        self.address = start_sandbox(self.name, image, self.node.network, *aliases, *mounts)
        if self.node.outside:
            docker("network", "connect", self.node.outside, self.name)
        execute, group = ("exec", "--interactive", "--user", "0", self.name), self.spec.group
        for name, volume in self.spec.volumes.items():
            folder = f"/volumes/{name}"
            if volume.kind == "files":
                docker(*execute, "tar", "-x", "-p", "-C", folder, stdin=_tar(volume, group))
            elif volume.kind != "claim":
                docker(*execute, "chgrp", str(group), folder)
                docker(*execute, "chmod", "2777" if group else "0777", folder)

    def _mounts(self, container: Container, volumes: Mapping[str, str]) -> list[str]:
        options = []
        for mount in container.mounts:
            volume = self.spec.volumes[mount.volume]
            if volume.kind == "claim" and volume.claim not in self.node.claims:
                raise Refused(f"{self.name}: no PersistentVolumeClaim {volume.claim} is there")
            source = self.node.claims[volume.claim] if volume.kind == "claim" else volumes[mount.volume]
            read_only = mount.read_only or volume.read_only or volume.kind == "files"
            options += ["--volume", f"{source}:{mount.path}{':ro' if read_only else ''}"]
        return options


def _tar(volume: Volume, group: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, (content, mode) in volume.files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.gid = len(content), mode, group
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
