"""The modules that a version brings along, which are visible to that version only.

The source files are in a zip archive. While the version is loaded, and while it predicts, its modules stand in
`sys.modules` under their own names; at other times they do not. So two versions in one process may have different
modules of one name, and neither hides an installed module of that name from anything else.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import io
import os
import sys
import threading
import zipfile
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from importlib.resources.abc import TraversableResources
from types import CodeType, ModuleType
from typing import Any

from headrace.errors import ModelError

#: The last step of a module's name in the archive: a package, or a file.
_PACKAGE, _FILE = "/__init__.py", ".py"


class OwnModules:
    """The modules in an archive; empty bytes are none. `title` names their version in errors and tracebacks.

    Raises ModelError for an archive that cannot be read, or that unpacks to more than `max_bytes`.
    """

    def __init__(self, data: bytes, title: str, *, max_bytes: int) -> None:
        self.title = title
        self._files = _unpack(data, title, max_bytes) if data else {}
        #: The names of the modules at the top.
        self.names = frozenset(path.partition("/")[0].removesuffix(_FILE) for path in self._files)
        #: The modules that were imported, while they are not in `sys.modules`.
        self._modules: dict[str, ModuleType] = {}
        self._finder = _Finder(self._files, title)

    @contextlib.contextmanager
    def importable(self) -> Iterator[None]:
        """Let the block import the modules. Other threads that ask for the modules of a version wait."""
        if not self.names:
            yield
            return
        with _LOCK:
            if _ACTIVE and _ACTIVE[-1][0] is self:
                yield
                return
            self._enter()
            try:
                yield
            finally:
                self._leave()

    def _enter(self) -> None:
        _ACTIVE.append((self, _remove_modules(self.names)))
        sys.modules.update(self._modules)
        sys.meta_path.insert(0, self._finder)

    def _leave(self) -> None:
        sys.meta_path.remove(self._finder)
        self._modules = _remove_modules(self.names)
        _, hidden = _ACTIVE.pop()
        sys.modules.update(hidden)


#: The modules that can be imported, the innermost last, each with the modules of those names that it hides.
_ACTIVE: list[tuple[OwnModules, dict[str, ModuleType]]] = []
#: Held by the thread whose modules these are.
_LOCK = threading.RLock()


def _after_fork() -> None:
    """Take back in a forked process what another thread of its parent was importing."""
    global _LOCK  # noqa: PLW0603  # the thread that holds it does not exist here
    if _LOCK._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001  # no public name for it
        return
    _LOCK = threading.RLock()
    while _ACTIVE:
        _ACTIVE[-1][0]._leave()  # noqa: SLF001  # of this module


os.register_at_fork(after_in_child=_after_fork)


def _remove_modules(names: frozenset[str]) -> dict[str, ModuleType]:
    """Remove modules and their submodules from `sys.modules`, and return them by name."""
    if names.isdisjoint(sys.modules):
        return {}
    imported = [name for name in sys.modules if name.partition(".")[0] in names]
    return {name: sys.modules.pop(name) for name in imported}


def _unpack(data: bytes, title: str, max_bytes: int) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > max_bytes:
                raise ModelError(
                    f"the modules of {title} unpack to {size:,} bytes, more than the {max_bytes:,} of "
                    "HEADRACE_MAX_MODEL_BYTES"
                )
            return {member.filename: archive.read(member) for member in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError) as error:
        raise ModelError(f"the modules of {title} are a damaged archive: {error}") from None


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of one archive."""

    def __init__(self, files: dict[str, bytes], title: str) -> None:
        self._files, self._title = files, title
        self._folders = {path[:end] for path in files for end, sign in enumerate(path) if sign == "/"}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002  # importlib's signature
        target: ModuleType | None = None,  # noqa: ARG002  # importlib's signature
    ) -> ModuleSpec | None:
        """Return the spec of a module of the archive; None for any other."""
        base = fullname.replace(".", "/")
        for ending in (_PACKAGE, _FILE):
            if (file := base + ending) in self._files:
                loader = _Loader(self._files, file, self._title)
                return importlib.util.spec_from_loader(fullname, loader, origin=loader.origin)
        if base not in self._folders:
            return None
        return ModuleSpec(fullname, None, is_package=True)  # a folder without __init__.py


class _Loader(importlib.abc.InspectLoader):
    """Loads one module from an archive."""

    def __init__(self, files: dict[str, bytes], file: str, title: str) -> None:
        self._files, self._file = files, file
        #: The name of the file for tracebacks: `churn@3/mykit/steps.py`.
        self.origin = f"{title}/{file}"

    def is_package(self, fullname: str) -> bool:  # noqa: ARG002  # importlib's signature
        """Decide whether the module is a package."""
        return self._file.endswith(_PACKAGE)

    def get_source(self, fullname: str) -> str:  # noqa: ARG002  # importlib's signature
        """Return the text of the module, for tracebacks too."""
        return importlib.util.decode_source(self._files[self._file])

    def get_code(self, fullname: str) -> CodeType:
        """Compile the module."""
        return compile(self.get_source(fullname), self.origin, "exec", dont_inherit=True)

    def get_resource_reader(self, fullname: str) -> Any:  # noqa: ARG002  # importlib's signature
        """Return what `importlib.resources` reads the files beside the module with."""
        return _Resources(self._files, self._file.rpartition("/")[0])


class _Resources(TraversableResources):
    """The files of one folder of an archive."""

    def __init__(self, files: dict[str, bytes], folder: str) -> None:
        self._archive_files, self._folder = files, folder

    def files(self) -> Any:
        """Return the folder."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in self._archive_files.items():
                archive.writestr(name, content)
        return zipfile.Path(zipfile.ZipFile(buffer), f"{self._folder}/" if self._folder else "")
