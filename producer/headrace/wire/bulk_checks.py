"""Checks of bulk jobs, by the submitter and again by the worker: names and references, as messages hold them.

What a reference means, and whether it may be read or written, the settings of a worker say.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from headrace.errors import InvalidInput
from headrace.wire.bulk import ChunkStep, FinishStep, PlanStep, Run, Step
from headrace.wire.names import check_model_name

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LOCATION = re.compile(r"[a-z][a-z0-9_-]{0,31}")
#: The form of a reference in errors.
_REFERENCE_FORM = "the name of a location, a colon and a path below it, such as in:2026-11/*.parquet"
#: The longest reference, in characters.
_MAX_REFERENCE = 1024
#: The folder in the output of a run for what belongs to the run, and is no part of the output.
RUN_FOLDER = "_headrace"


def check_run_name(name: object) -> str:
    """Return the name of a run if it is valid. Raises InvalidInput otherwise."""
    if not isinstance(name, str) or not _RUN_NAME.fullmatch(name):
        shown = repr(name[:80]) if isinstance(name, str) else f"a {type(name).__name__}"
        raise InvalidInput(
            f"a run's name is 1 to 64 letters, digits, '-', '_' or '.', the first a letter or digit; got {shown}"
        )
    return name


def check_reference(reference: object, name: str) -> str:
    """Return a reference, `location:path`, if its form is valid. Raises InvalidInput, which names the argument.

    The path is relative, and names no folder above.
    """
    if not isinstance(reference, str):
        raise InvalidInput(f"`{name}` is {_REFERENCE_FORM}; got a {type(reference).__name__}")
    location, has_location, path = reference.partition(":")
    if path.startswith("//"):  # it is not quoted: it may hold a password
        raise InvalidInput(
            f"`{name}` is a URL, which no job carries; write {_REFERENCE_FORM}. The workers' setting "
            "HEADRACE_LOCATIONS says which bucket or folder a location is"
        )
    if not has_location:
        raise InvalidInput(
            f"`{name}` has no location, {reference[:80]!r}; write {_REFERENCE_FORM}. Workers read the table "
            "themselves: for a file of this machine, use `headrace batch`"
        )
    if not (_LOCATION.fullmatch(location) and path) or len(reference) > _MAX_REFERENCE:
        raise InvalidInput(
            f"`{name}` is {_REFERENCE_FORM}, {_MAX_REFERENCE:,} characters at most; a location is 1 to 32 of a-z, "
            f"0-9, '-' and '_', a letter first; got {reference[:80]!r}"
        )
    segments = path.removesuffix("/").split("/")
    if "" in segments or "." in segments or ".." in segments or "\\" in path or not path.isprintable():
        raise InvalidInput(
            f"the path of `{name}` is below its location, without '..', '.', '//', '\\' and control characters; "
            f"got {reference[:80]!r}"
        )
    return reference


def check_run(run: Run) -> None:
    """Check what a run was asked for. Raises InvalidInput."""
    check_run_name(run.name)
    check_model_name(run.model)
    check_reference(run.input, "input")
    check_reference(run.output, "output")
    if any(mark in run.output for mark in "*?["):
        raise InvalidInput(f"`output` is a folder, not a pattern; got {run.output[:80]!r}")
    if RUN_FOLDER in run.output.partition(":")[2].split("/"):
        raise InvalidInput(f"`output` names the folder {RUN_FOLDER}, which belongs to a run; choose another")


def read_step(model: str, step: Any) -> Step:
    """Return the step of a bulk job of this model. Raises InvalidInput for anything else."""
    try:
        read: Step = msgspec.convert(step, Step)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidInput(f"the step of a bulk job cannot be read: {error}") from None
    match read:
        case PlanStep(run=run):
            check_run(run)
            if run.model != model:
                raise InvalidInput(f"the job names the model {model!r}, and its run {run.model[:64]!r}")
        case ChunkStep():
            _check_chunk(read)
        case FinishStep():
            pass
    return read


def _check_chunk(step: ChunkStep) -> None:
    check_reference(step.input, "input")
    check_reference(step.output, "output")
    if step.last is not None and step.last < step.first:
        raise InvalidInput(f"the piece of a chunk ends at {step.last}, before it begins at {step.first}")
    if step.rows is not None and step.rows[1] <= step.rows[0]:
        raise InvalidInput(f"the rows of a chunk end at {step.rows[1]}, before they begin at {step.rows[0]}")
