"""Run one target under libFuzzer, by Atheris: inputs that reach new code are kept and mutated further.

A process of its own, started by `campaign`. It goes on after an exception, which it stores as a finding. A crash,
a hang or too much memory ends it, and libFuzzer stores the input.
"""

from __future__ import annotations

import contextlib
import logging
import random
import sys
import tempfile
import traceback
from pathlib import Path

import atheris

#: The lines of code that raised findings, of which only the first is stored.
_ORIGINS: set[str] = set()
_PACKAGES = ["headrace", "headrace_worker", "headrace_gateway"]
#: Part of the mutations that are libFuzzer's own, which knows the texts that the code compares with.
_OWN_SHARE = 0.4
_MAX_BYTES = 64 * 1024


def main(name: str, findings: Path, *options: str, blind: bool = False) -> None:
    """Fuzz a target until libFuzzer's `options` say to end. Blind: mutate the valid inputs only."""
    from tests.fuzz.confinement import confine
    from tests.fuzz.kept import write_input
    from tests.fuzz.targets import open_target

    logging.getLogger("headrace").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder, open_target(name, Path(folder)) as target:
        if target.confined:
            confine()

        def run(data: bytes) -> None:
            try:
                target.run(data)
            except Exception as error:  # noqa: BLE001  # each is a finding
                origin = _error_origin(error)
                if origin not in _ORIGINS:
                    _ORIGINS.add(origin)
                    path = write_input(findings, data)
                    path.with_suffix(".error").write_text(traceback.format_exc())

        def mutate(data: bytes, max_size: int, seed: int) -> bytes:
            chance = random.Random(seed)
            if blind:
                return target.mutate(chance.choice(target.inputs), target.inputs, chance)[:max_size]
            if chance.random() < _OWN_SHARE:
                return bytes(atheris.Mutate(data, max_size))
            return target.mutate(data, target.inputs, chance)[:max_size]

        arguments = [sys.argv[0], f"-max_len={_MAX_BYTES}", f"-artifact_prefix={findings}/", *options]
        atheris.Setup(arguments, run, custom_mutator=mutate)
        atheris.Fuzz()


def _error_origin(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "headrace" in frame.filename] or frames
    return f"{type(error).__name__} {own[-1].filename}:{own[-1].lineno} {str(error)[:40]}"


if __name__ == "__main__":
    with contextlib.ExitStack() as stack:  # never closed: commands import their modules late
        stack.enter_context(atheris.instrument_imports(include=_PACKAGES, enable_loader_override=False))
        main(sys.argv[1], Path(sys.argv[2]), *sys.argv[4:], blind=sys.argv[3] == "blind")
