"""Write a software bill of materials in CycloneDX 1.6: the Python packages of this environment and Debian's.

    python sbom.py > sbom.json
    python sbom.py --python-only > sbom.json   # without Debian's packages, for wheels

Uses the standard library only, because the image has no other build tools.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from typing import Any

#: Output format of dpkg-query: name, version and architecture, separated by tabs.
_DEBIAN = "-f=${Package}\t${Version}\t${Architecture}\n"


def python_package(distribution: Distribution) -> dict[str, Any]:
    """Return an installed distribution as a component."""
    metadata = distribution.metadata
    name, version = metadata["Name"], distribution.version
    component = {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version}",
    }
    licence = metadata.get("License-Expression")
    if licence:
        component["licenses"] = [{"expression": licence}]
    return component


def debian_package(line: str) -> dict[str, Any]:
    """Return a line of dpkg-query as a component."""
    name, version, architecture = line.split("\t")
    purl = f"pkg:deb/debian/{name}@{version}?arch={architecture}"
    return {"type": "library", "name": name, "version": version, "purl": purl}


def main() -> None:
    """Print the bill of materials as JSON."""
    components = [python_package(distribution) for distribution in distributions()]
    if "--python-only" not in sys.argv[1:]:
        output = subprocess.run(["dpkg-query", "-W", _DEBIAN], capture_output=True, text=True, check=True)  # noqa: S603, S607  # fixed arguments, the image's own program
        components += [debian_package(line) for line in output.stdout.splitlines()]
    components.sort(key=lambda component: component["purl"])
    json.dump({"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}, sys.stdout)


if __name__ == "__main__":
    main()
