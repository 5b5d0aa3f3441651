"""Make the archive of the modules that a version brings along, from files and folders."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from headrace.errors import ModelError
from headrace_worker.store.folder import check_size, read_capped

#: Modules that a version cannot bring: it would use another copy of them than Headrace does.
_OF_HEADRACE = {"headrace", "headrace_worker", "joblib", "numpy", "pandas", "scipy", "sklearn", "skops"}
#: Compiled modules, which cannot be imported from an archive.
_COMPILED = {".so", ".pyd", ".dylib", ".dll"}
_MODE = 0o644 << 16


def archive_modules(paths: Sequence[Path], *, max_bytes: int) -> bytes:
    """Return an archive of Python modules: .py files, and folders of packages. Equal files make equal bytes.

    Hidden files and compiled bytecode are left out. Raises ModelError for what cannot be imported.
    """
    files: dict[str, bytes] = {}
    for path in paths:
        for name, file in _iter_files(path):
            if name in files:
                raise ModelError(f"two of the modules contain {name}; give each module once")
            files[name] = read_capped(file, str(file), max_bytes)
            if name.endswith(".py"):
                _check_syntax(files[name], file)
    check_size(sum(map(len, files.values())), "the code of the model", max_bytes)
    return archive_files(files)


def archive_files(files: Mapping[str, bytes]) -> bytes:
    """Return a zip archive of files by name. Equal files make equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            member = zipfile.ZipInfo(name)  # of a fixed time
            member.external_attr, member.compress_type = _MODE, zipfile.ZIP_DEFLATED
            archive.writestr(member, files[name])
    return buffer.getvalue()


def _iter_files(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a module, and their names in the archive."""
    path = path.resolve()
    if not path.exists():
        raise ModelError(f"{path} does not exist; give the .py file or the package's folder that the model needs")
    if not path.is_dir() and path.suffix != ".py":
        raise ModelError(f"{path} is no Python module: give a .py file, or the folder of a package")
    _check_name(path.stem if path.is_file() else path.name, path)
    if path.is_file():
        yield path.name, path
        return
    is_empty = True
    for file in sorted(path.rglob("*")):
        steps = file.relative_to(path).parts
        if not file.is_file() or any(step.startswith(".") or step == "__pycache__" for step in steps):
            continue
        if file.suffix in _COMPILED:
            raise ModelError(
                f"{file} is a compiled module, which a version cannot bring along; install its package on the "
                "workers"
            )
        is_empty = is_empty and file.suffix != ".py"
        yield "/".join((path.name, *steps)), file
    if is_empty:
        raise ModelError(f"{path} has no .py file; give the folder of a package")


def _check_name(name: str, path: Path) -> None:
    if not name.isidentifier():
        raise ModelError(f"{path} cannot be imported: {name!r} is no name of a Python module")
    if name in sys.stdlib_module_names or name in _OF_HEADRACE:
        raise ModelError(f"{path} has the name of a module that Headrace itself imports: rename {name}")


def _check_syntax(source: bytes, file: Path) -> None:
    try:
        compile(source, str(file), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ModelError(f"{file}{line} is not Python: {reason}") from None
