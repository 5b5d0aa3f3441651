"""Names that callers choose: of models and versions, of jobs, and of callers, endpoints and listeners."""

from __future__ import annotations

import re
from typing import Any

from headrace.errors import InvalidInput

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
#: The name of a caller, an endpoint or listeners. It has no dot, so no two callers share a prefix of ids,
#: `<caller>.`, and no colon, which ends it in an entry of listeners.
_SHORT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


def check_model_name(model: object) -> str:
    """Return the name of a model if it is valid as a part of queue names, key names and paths.

    Raises InvalidInput otherwise.
    """
    if not isinstance(model, str) or not is_model_name(model):
        raise InvalidInput(
            "a model's name is 1 to 64 letters, digits, '-' or '_', the first a letter or digit; "
            f"got {_abbreviate(model)}"
        )
    return model


def is_model_name(text: str) -> bool:
    """Decide whether a text is a valid name of a model."""
    return _MODEL_NAME.fullmatch(text) is not None


def is_short_name(text: object) -> bool:
    """Return True if a text is valid as the name of a caller, an endpoint or a listener."""
    return isinstance(text, str) and _SHORT_NAME.fullmatch(text) is not None


def check_short_name(field: str, name: object) -> str:
    """Return the name of a caller, an endpoint or listeners if it is valid.

    Raises InvalidInput, which tells the field.
    """
    if not isinstance(name, str) or not is_short_name(name):
        raise InvalidInput(
            f"`{field}` is a name of 1 to 32 letters, digits, '-' or '_', the first a letter or digit"
        )
    return name


def split_version(model: Any, version: Any = None) -> tuple[Any, Any]:
    """Return a model's name and its version, which may be written behind the name: `churn@7`.

    The version is a number or an alias. Neither name nor version is checked. Raises InvalidInput if the version
    is given twice, or if nothing follows the `@`.
    """
    if not isinstance(model, str) or "@" not in model:
        return model, version
    name, _, suffix = model.partition("@")
    if version is not None:
        raise InvalidInput(f"{_abbreviate(model)} names a version, and so does `version`; give one of them")
    if not suffix:
        raise InvalidInput(f"{_abbreviate(model)} has no version behind the '@'; write a number or an alias there")
    return name, suffix


def check_job_id(job: object) -> str:
    """Return the id of a job if it is valid. Raises InvalidInput otherwise."""
    if not isinstance(job, str) or not _JOB_ID.fullmatch(job):
        raise InvalidInput(
            "a job's id is 1 to 128 letters, digits, '-', '_', '.' or ':', the first a letter or digit; "
            f"got {_abbreviate(job)}"
        )
    return job


def is_job_id(text: str) -> bool:
    """Decide whether a text is valid as the id of a job."""
    return _JOB_ID.fullmatch(text) is not None


def _abbreviate(value: object) -> str:
    return repr(value[:80]) if isinstance(value, str) else f"a {type(value).__name__}"
