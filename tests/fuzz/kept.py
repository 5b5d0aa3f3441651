"""The kept corpus, and findings: files that a command runs again.

`corpus/<target>/` has inputs that reached what the valid ones do not. Its files are named by their content, and
are small enough to be run with each `make test`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.fuzz.target import Target

CORPUS = Path(__file__).with_name("corpus")
#: Bytes of a file that is kept, of all files of a target, and their number.
_MAX_FILE, _MAX_TARGET, _MAX_FILES = 4_096, 12_000, 60


def read_kept(target: Target, corpus: Path = CORPUS) -> list[bytes]:
    """Return the kept inputs of a target."""
    return [path.read_bytes() for path in sorted((corpus / target.slug).glob("*")) if path.is_file()]


def keep(target: Target, inputs: list[bytes], corpus: Path = CORPUS) -> int:
    """Add inputs to the corpus of a target, the shortest first, while there is room. Return their number."""
    former = read_kept(target, corpus)
    size, added = sum(map(len, former)), 0
    for data in sorted(set(inputs) - set(former) - set(target.inputs), key=len):
        if len(data) > _MAX_FILE or size + len(data) > _MAX_TARGET or len(former) + added >= _MAX_FILES:
            break
        write_input(corpus / target.slug, data)
        size, added = size + len(data), added + 1
    return added


def write_input(folder: Path, data: bytes) -> Path:
    """Write an input into a folder, under the name of its content."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path
