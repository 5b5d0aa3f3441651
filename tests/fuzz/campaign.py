"""Fuzz targets with guidance for a time, and collect what they find."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.kept import read_kept, write_input
from tests.fuzz.target import Target

#: libFuzzer's line about its state: inputs so far, branches reached.
_STATE = re.compile(rb"^#(\d+)\s.*\bcov: (\d+)", re.MULTILINE)
#: Seconds that one input may take, and megabytes of memory.
_INPUT_SECONDS, _MAX_MB = 60, 4_096


class Outcome(NamedTuple):
    """The result of fuzzing one target."""

    inputs: int
    #: Branches of Headrace's code that were reached.
    branches: int
    #: The files of the inputs that broke the promise. Beside each, `.error` has its traceback.
    findings: list[Path]


def fuzz_guided(target: Target, folder: Path, *, seconds: float, seed: int, blind: bool = False) -> Outcome:
    """Fuzz a target. `folder` has its grown corpus and its findings afterwards.

    A process that an input ends is started anew, with another seed.
    """
    corpus, findings = folder / "corpus", folder / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    for data in (*target.inputs, *([] if blind else read_kept(target))):
        write_input(corpus, data)
    inputs = branches = 0
    deadline = time.monotonic() + seconds
    while (remaining := round(deadline - time.monotonic())) > 0:
        options = [
            f"-max_total_time={remaining}",
            f"-seed={seed}",
            f"-timeout={_INPUT_SECONDS}",
            f"-rss_limit_mb={_MAX_MB}",
            "-verbosity=1",
            str(corpus),
        ]
        output = _run(target, findings, "blind" if blind else "guided", options)
        states = _STATE.findall(output)
        if not states:
            raise RuntimeError(f"{target.name} did not start:\n{output[-3000:].decode(errors='replace')}")
        inputs += int(states[-1][0])
        branches = max(branches, int(states[-1][1]))
        seed += 1
        if b"\nDone " in output:
            break
        _describe_end(findings, output)
    return Outcome(inputs, branches, sorted(path for path in findings.iterdir() if path.suffix != ".error"))


def read_grown(folder: Path) -> list[bytes]:
    """Return the inputs of a grown corpus. libFuzzer replaces an input by a shorter one that reaches the same."""
    return [path.read_bytes() for path in sorted((folder / "corpus").iterdir())]


def _run(target: Target, findings: Path, mode: str, options: list[str]) -> bytes:
    command = [sys.executable, "-m", "tests.fuzz.guided", target.name, str(findings), mode, *options]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return run.stdout


def _describe_end(findings: Path, output: bytes) -> None:
    """Write the end of the process beside the input that libFuzzer has stored."""
    for path in findings.iterdir():
        error = path.with_suffix(".error")
        if path.suffix != ".error" and not error.exists():
            error.write_bytes(output[-4_000:])
