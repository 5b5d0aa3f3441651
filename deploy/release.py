"""Build a release into dist/: `make release`.

1. The version: the same in all distributions and in the chart.
2. A wheel and an sdist of each distribution, checked by twine. Each wheel is built from its sdist.
3. The Helm chart as an archive.
4. The list of packages (CycloneDX) of an environment with the three wheels, at the versions of requirements.lock.
5. The notes: the section of the version in CHANGELOG.md, or what is unreleased.
6. The images, where a Docker engine runs.
7. The SHA-256 digests of all files.

Nothing is uploaded. Run it from the root of the repository. `--tools` is the Python of an environment with build
and twine.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("producer", "worker", "gateway")
CHART = ROOT / "deploy" / "helm" / "headrace"
#: The images, each by the name of its Dockerfile.
IMAGES = {
    "producer": "headrace",
    "worker": "headrace-worker",
    "flower": "headrace-flower",
    "gateway": "headrace-gateway",
}


class ReleaseError(Exception):
    """The repository is not ready for a release; the message says why."""


def common_version(root: Path = ROOT) -> str:
    """Return the version that all distributions and the chart have."""
    versions = {}
    for folder in FOLDERS:
        project = tomllib.loads((root / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        versions[f"{folder}/pyproject.toml"] = project["version"]
        for requirement in project["dependencies"]:
            if requirement.startswith("headrace=="):
                versions[f"{folder}/pyproject.toml, dependencies"] = requirement.removeprefix("headrace==")
    chart = (root / "deploy" / "helm" / "headrace" / "Chart.yaml").read_text(encoding="utf-8")
    for key, value in re.findall(r'^(version|appVersion): "?([^"\n]+)"?$', chart, re.MULTILINE):
        versions[f"Chart.yaml, {key}"] = value
    if len(set(versions.values())) > 1:
        raise ReleaseError(f"versions differ: {', '.join(f'{file} {v}' for file, v in versions.items())}")
    return versions["producer/pyproject.toml"]


def release_notes(changelog: str, version: str) -> str:
    """Return the section of a version in the changelog, else that of what is unreleased."""
    sections = dict(re.findall(r"^## \[?([\w.]+)[^\n]*\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL))
    text = sections.get(version, sections.get("Unreleased", "")).strip()
    if not text:
        raise ReleaseError(f"CHANGELOG.md has no section for {version}, and nothing is unreleased")
    return f"# Headrace {version}\n\n{text}\n"


def run(*command: str | Path, output: Path | None = None) -> None:
    """Run a command, its standard output in a file where one is named; raise ReleaseError if it fails."""
    print("$", *(str(word) for word in command), flush=True)
    text = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE if output else None, check=False)  # noqa: S603  # our own commands
    if text.returncode != 0:
        raise ReleaseError(f"{command[0]} exited with {text.returncode}")
    if output:
        output.write_bytes(text.stdout)


def build_distributions(tools: Path, target: Path) -> None:
    """Build a wheel and an sdist of each distribution, and check them."""
    for folder in FOLDERS:
        run(tools, "-m", "build", "--outdir", target, ROOT / folder)
    run(tools, "-m", "twine", "check", "--strict", *sorted(target.glob("*.whl")), *sorted(target.glob("*.tar.gz")))


def write_sbom(target: Path, version: str) -> None:
    """Install the wheels at the locked versions in an environment of their own, and list its packages."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=False, symlinks=True)
        python = Path(folder) / "bin" / "python"
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "--disable-pip-version-check",
            "install",
            "--quiet",
        ]
        run(*pip, "--constraint", ROOT / "requirements.lock", *sorted(target.glob("*.whl")))
        run(python, ROOT / "deploy" / "sbom.py", "--python-only", output=target / f"headrace-{version}.cdx.json")


def find_helm() -> str | Path:
    """Return helm of PATH, else the binary that the tests of the chart use."""
    if helm := shutil.which("helm"):
        return helm
    from tests.chart.wheels import find_helm

    return find_helm()


def build_images(version: str) -> bool:
    """Build the images with the version as their tag; return whether a Docker engine runs."""
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "info"], capture_output=True, check=False).returncode != 0:  # noqa: S603  # our own command
        return False
    for name, image in IMAGES.items():
        run(docker, "build", "--file", f"deploy/{name}.Dockerfile", "--tag", f"{image}:{version}", ".")
    return True


def write_digests(target: Path) -> None:
    """Write the SHA-256 digest of each file of the release, in the form of sha256sum."""
    files = sorted(file for file in target.iterdir() if file.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (target / "SHA256SUMS").write_text("".join(lines))


def has_addresses() -> bool:
    """Return whether each distribution names its addresses, such as its source."""
    projects = [tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"] for folder in FOLDERS]
    return all("urls" in project for project in projects)


def main() -> None:
    """Build the release, and say what was left out."""
    parser = argparse.ArgumentParser(description="Build a release.")
    parser.add_argument("--tools", type=Path, required=True, help="a Python with build and twine")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="the folder; its files are replaced")
    options = parser.parse_args()
    target = options.out.resolve()
    try:
        version = common_version()
        notes = release_notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        build_distributions(options.tools, target)
        run(find_helm(), "package", CHART, "--destination", target)
        (target / f"headrace-{version}.tgz").rename(target / f"headrace-chart-{version}.tgz")
        write_sbom(target, version)
        (target / "RELEASE_NOTES.md").write_text(notes, encoding="utf-8")
        with_images = build_images(version)
        write_digests(target)
    except ReleaseError as error:
        sys.exit(f"release: {error}")
    print(f"Headrace {version} is in {target}:", *sorted(file.name for file in target.iterdir()), sep="\n  ")
    if not with_images:
        print("left out: the images, as no Docker engine runs here")
    if not has_addresses():
        print("before you upload: name the repository in [project.urls] of each pyproject.toml")


if __name__ == "__main__":
    main()
