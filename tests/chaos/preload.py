"""Libraries in C that are preloaded into a process to change its clock or its disk."""

from __future__ import annotations

import shlex
import shutil
import struct
import subprocess
from pathlib import Path

from tests.chaos.disk import SkipScenario


def compile_library(folder: Path, source: str) -> Path:
    """Compile a source file of this folder to a library, and return its path. Raises SkipScenario."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise SkipScenario(f"{source} needs a C compiler; on Debian: apt-get install gcc libc6-dev")
    library = folder / f"{source}.so"
    compilation = subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, Path(__file__).parent / source],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if compilation.returncode:
        raise SkipScenario(f"{source} cannot be compiled here: {compilation.stderr[-300:]}")
    return library


class PreloadedRedis:
    """A server with a preloaded library that reads one whole number, which may change at any time.

    The library maps the file that the environment variable CHAOS_VALUE_FILE names. The attribute
    `server` is the program to start in the place of `server`.
    """

    def __init__(self, folder: Path, source: str, server: Path) -> None:
        library, self._file = compile_library(folder, source), folder / f"{source}.value"
        self.set(0)
        self.server = folder / f"redis-server-{source}"
        variables = {"LD_PRELOAD": library, "CHAOS_VALUE_FILE": self._file}
        assignments = " ".join(f"{name}={shlex.quote(str(value))}" for name, value in variables.items())
        self.server.write_text(f'#!/bin/sh\n{assignments} exec {shlex.quote(str(server))} "$@"\n')
        self.server.chmod(0o700)

    def set(self, value: int) -> None:
        """Set the number. The file is written in place, as the library has mapped it."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("q", value))
