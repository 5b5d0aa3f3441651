"""The manifest of a run: its version and its chunks, in the output, so that all its plans have the same chunks."""

from __future__ import annotations

import hashlib

import msgspec

from headrace.errors import InvalidInput
from headrace.wire.bulk import ChunkStep, Run
from headrace_worker.bulk.locations import Locations
from headrace_worker.bulk.receipts import OWN_FOLDER
from headrace_worker.bulk.sources import Source
from headrace_worker.manifest import Manifest

_FILE = f"{OWN_FOLDER}/manifest.json"
#: The most bytes of a manifest, and the most chunks of a run: some 300 bytes each.
_MAX_BYTES, MAX_CHUNKS = 512 * 1024**2, 1_000_000


class RunManifest(msgspec.Struct, frozen=True, kw_only=True):
    """The files that a run reads and writes. It is written once, before the first chunk is enqueued."""

    run: Run
    #: The version, and the digest of its artifact and contract.
    version: str
    digest: str
    sources: tuple[Source, ...]
    chunks: tuple[ChunkStep, ...]

    @property
    def rows(self) -> int | None:
        """The rows of all chunks; None if those of some are not counted."""
        counts = [step.count for step in self.chunks]
        return None if None in counts else sum(count for count in counts if count is not None)


_MANIFEST = msgspec.json.Decoder(RunManifest)


def digest_version(manifest: Manifest) -> str:
    """Return the digest of what decides the predictions of a version: its artifact and its contract."""
    contract = msgspec.json.encode(manifest.contract)
    return hashlib.sha256(manifest.sha256.encode() + contract).hexdigest()


def read_manifest(locations: Locations, run: Run) -> RunManifest | None:
    """Read the manifest of a run from its output; None if no plan has written it. Raises InvalidInput."""
    file = locations.own_file(run.output, _FILE)
    data = file.storage.read(file.path, _MAX_BYTES)
    if data is None:
        return None
    try:
        manifest = _MANIFEST.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidInput(
            f"{file.reference} cannot be read: it was changed or damaged; name a new folder for the output"
        ) from None
    if manifest.run != run:
        raise InvalidInput(
            f"{run.output} holds the output of a run with other arguments; name a new folder for the output"
        )
    return manifest


def write_manifest(locations: Locations, manifest: RunManifest) -> None:
    """Write the manifest of a run into its output."""
    file = locations.own_file(manifest.run.output, _FILE)
    with file.storage.write(file.path) as sink:
        sink.write(msgspec.json.encode(manifest))
