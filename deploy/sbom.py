"""Write what an image holds, as CycloneDX 1.6: Python packages of the environment that runs this, and Debian's.

    python sbom.py > sbom.json

The standard library only: the image it runs in has nothing else to build with.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from typing import Any

#: name, version, architecture: as dpkg writes them.
_DEBIAN = "-f=${Package}\t${Version}\t${Architecture}\n"


def python_package(found: Distribution) -> dict[str, Any]:
    """One installed distribution as a component."""
    name, said = found.metadata["Name"], found.metadata
    component = {
        "type": "library",
        "name": name,
        "version": found.version,
        "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{found.version}",
    }
    licence = said.get("License-Expression")
    if licence:
        component["licenses"] = [{"expression": licence}]
    return component


def debian_package(line: str) -> dict[str, Any]:
    """One line of dpkg-query as a component."""
    name, version, architecture = line.split("\t")
    purl = f"pkg:deb/debian/{name}@{version}?arch={architecture}"
    return {"type": "library", "name": name, "version": version, "purl": purl}


def main() -> None:
    """Print the whole."""
    listed = subprocess.run(["dpkg-query", "-W", _DEBIAN], capture_output=True, text=True, check=True)  # noqa: S603, S607  # our own words, the image's own program
    components = [python_package(found) for found in distributions()]
    components += [debian_package(line) for line in listed.stdout.splitlines()]
    components.sort(key=lambda component: component["purl"])
    json.dump({"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}, sys.stdout)


if __name__ == "__main__":
    main()
