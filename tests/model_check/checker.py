"""Run spin on the model: translate it into C, compile the verifier, visit every state, and read the report."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.model_check.configurations import Configuration, Fault, find_configuration

MODEL = Path(__file__).parent / "claim_protocol.pml"
#: Seconds for a run of the verifier, and its megabytes of memory.
_MAX_SECONDS, _MAX_MEGABYTES = 900, 3500
_MAX_DEPTH = 2_000_000
_STATES = re.compile(r"^\s*(\d+) states, stored", re.MULTILINE)
#: With fairness, the visits of a state count besides its storage.
_TRANSITIONS = re.compile(r"^\s*(\d+) transitions", re.MULTILINE)
_DEPTH = re.compile(r"depth reached (\d+), errors: (\d+)")
_MEMORY = re.compile(r"^\s*([\d.]+)\s+total actual memory usage", re.MULTILINE)
_VIOLATION = re.compile(r"^pan:\d+: (.*) \(at depth", re.MULTILINE)
_STEP = re.compile(r"^\s*STEP (.*)$", re.MULTILINE)

#: The promises of the model, by what the assertion that checks each contains and no other before it.
_PROMISES = (
    ("1-leases", "no list without its lease"),
    ("published[", "published once"),
    ("has_letter[", "the failures are the dead letters"),
    ("has_record[", "in exactly one place"),
    ("outcome[", "nothing is left of a job that has ended"),
    ("ran_alone_last", "given up only for a run alone"),
    ("cancelled_early", "a job that was cancelled in time does not run"),
    ("is_expired", "a renewed lease is not ended"),
    ("number==1", "a job of a lost run runs alone"),
    ("is_confirmed", "a durable job is kept"),
)


class CheckError(Exception):
    """A run of spin, gcc or the verifier that failed, or that did not visit every state."""


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """The report of one run of the verifier."""

    states: int
    transitions: int
    #: The most steps from the first state to another.
    depth: int
    megabytes: float
    #: Of the verifier, without the compiler.
    seconds: float
    #: The promise that was broken; None if none was.
    violation: str | None
    #: The steps that lead there.
    steps: tuple[str, ...]


def find_missing_tool() -> str | None:
    """Return the first program that the check needs and that is not installed; None if all are."""
    return next((name for name in ("spin", "gcc") if shutil.which(name) is None), None)


def check(configuration: Configuration, fault: Fault | None = None) -> CheckResult:
    """Visit every state of a configuration, or stop at the first broken promise. Raises CheckError."""
    defines = [*configuration.defines, *([fault.name] if fault else [])]
    with tempfile.TemporaryDirectory(prefix="headrace-model-") as name:
        folder = Path(name)
        _run(["spin", "-a", *(f"-D{define}" for define in defines), str(MODEL)], folder)
        options = ["-DNFAIR=4"] if configuration.is_liveness else ["-DSAFETY", "-DNOFAIR"]
        limits = [f"-DMEMLIM={_MAX_MEGABYTES}", "-DCOLLAPSE"]
        _run(["gcc", "-O1", "-w", *limits, *options, "-o", "pan", "pan.c"], folder)
        started = time.monotonic()
        flags = ["-a", "-f"] if configuration.is_liveness else ["-E"]
        report = _run(["./pan", *flags, f"-m{_MAX_DEPTH}", "-w22"], folder)
        seconds = time.monotonic() - started
        steps: tuple[str, ...] = ()
        if (folder / f"{MODEL.name}.trail").exists():
            trail = _run(["./pan", "-r", f"{MODEL.name}.trail"], folder, may_fail=True)
            steps = tuple(_STEP.findall(trail))
        return _read_report(report, seconds, steps, configuration)


def check_fault(fault: Fault) -> CheckResult:
    """Check the model with a fault in its configuration. Raises CheckError."""
    return check(find_configuration(fault.configuration), fault)


def _run(command: Sequence[str], folder: Path, *, may_fail: bool = False) -> str:
    result = subprocess.run(  # our own arguments
        command, cwd=folder, capture_output=True, text=True, timeout=_MAX_SECONDS, check=False
    )
    output = result.stdout + result.stderr
    if not may_fail and (result.returncode or "Error:" in output):
        raise CheckError(f"{' '.join(command)} ended with {result.returncode}: {output[:2000]}")
    return output


def _read_report(report: str, seconds: float, steps: tuple[str, ...], configuration: Configuration) -> CheckResult:
    states, transitions = _STATES.search(report), _TRANSITIONS.search(report)
    depth, memory = _DEPTH.search(report), _MEMORY.search(report)
    if not (states and transitions and depth and memory):
        raise CheckError(f"{configuration.name}: the verifier has not reported: {report[:2000]}")
    violation = None
    if depth[2] != "0":
        match = _VIOLATION.search(report)
        violation = _name_promise(match[1] if match else report[:500])
    elif "Search not completed" in report or "max search depth too small" in report:
        raise CheckError(f"{configuration.name}: not every state was visited: {report[:500]}")
    return CheckResult(
        states=int(states[1]),
        transitions=int(transitions[1]),
        depth=int(depth[1]),
        megabytes=float(memory[1]),
        seconds=seconds,
        violation=violation,
        steps=steps,
    )


def _name_promise(message: str) -> str:
    """Return the promise that the message of the verifier is about, in words."""
    if "acceptance cycle" in message:
        return "every job ends"
    return next((promise for text, promise in _PROMISES if text in message), message)
