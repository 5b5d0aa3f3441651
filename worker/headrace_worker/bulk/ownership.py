"""A folder of outputs belongs to one run: no other run and no other file is written over.

The plan job claims the folder with `_headrace/run.json`, which is only ever created. Each chunk looks at it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.errors import InvalidInput
from headrace.wire.bulk import ChunkStep
from headrace_worker.bulk.locations import Locations, parent_reference
from headrace_worker.bulk.receipts import OWN_FOLDER, read_part_receipt

#: The file that says whose a folder is.
_OWNER = f"{OWN_FOLDER}/run.json"
_MAX_OWNER_BYTES = 64 * 1024


def claim_output(locations: Locations, reference: str, run: str) -> None:
    """Make a folder of outputs that of a run. It may be the run's already.

    Raises InvalidInput if it is another run's, lies in another run's, or holds files of others.
    """
    owner = read_owner(locations, reference)
    if owner is None:
        _check_parents(locations, reference, run)
        file = locations.resolve(reference, for_writing=True)
        if _has_files(file.storage, file.path):
            raise InvalidInput(f"{reference} holds files already; name a new folder for the output of a run")
        own_file = locations.own_file(reference, _OWNER)
        if own_file.storage.create(own_file.path, msgspec.json.encode({"run": run})):
            return
        owner = read_owner(locations, reference)
    if owner != run:
        raise InvalidInput(f"{reference} is the output of the run {owner!r}; name another folder")


def check_owner(locations: Locations, step: ChunkStep) -> None:
    """Raise InvalidInput if the part of a chunk may not be written where its step says.

    The chunk of a run writes into that run's folder. A chunk without a run writes a file that does not exist, or
    that it has written before.
    """
    folder = parent_reference(step.output)
    owner = read_owner(locations, folder)
    if step.run:
        if owner != step.run:
            known_owner = f"is the output of the run {owner!r}" if owner else "was not claimed by a plan"
            raise InvalidInput(f"{folder} {known_owner}; a chunk of {step.run!r} is not written there")
        return
    if owner is not None:
        raise InvalidInput(
            f"{folder} is the output of the run {owner!r}; a chunk without a run is not written there"
        )
    _check_parents(locations, folder, "")
    file = locations.resolve(step.output, for_writing=True)
    if file.storage.read(file.path, 0) is not None:
        receipt = read_part_receipt(locations, step.output)
        if receipt is None or not receipt.is_for(step):
            raise InvalidInput(
                f"{step.output} exists already, and is not the part of this chunk; name another file"
            )


def read_owner(locations: Locations, reference: str) -> str | None:
    """Return the run whose output a folder is; None if no run has claimed it."""
    file = locations.own_file(reference, _OWNER)
    data = file.storage.read(file.path, _MAX_OWNER_BYTES)
    if data is None:
        return None
    try:
        content: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError:
        content = {}
    return str(content.get("run", "?"))


def _check_parents(locations: Locations, reference: str, run: str) -> None:
    """Raise InvalidInput if a folder above is the output of another run."""
    while not reference.endswith(":"):
        reference = parent_reference(reference.removesuffix("/"))
        owner = read_owner(locations, reference)
        if owner is not None and owner != run:
            raise InvalidInput(f"{reference} is the output of the run {owner!r}; name a folder outside of it")


def _has_files(storage: Any, path: str) -> bool:
    try:
        return next(iter(storage.walk(path)), None) is not None
    except InvalidInput:  # there is no such folder yet
        return False
