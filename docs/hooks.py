"""Adapt docs/ to MkDocs without a change to its pages: links out of docs/, and docstrings of the Python API.

A page keeps relative links that work on a code host. For the site, each linked file outside of docs/ becomes a
page under `repository/`: a Markdown file as it is, any other text as a code block. They are not in the navigation.

The page of the Python API lists the public names in tables. In the site, their docstrings follow each table.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
#: The folder of the site for files outside of docs/.
OUTSIDE = "repository"

#: The page that lists the public names of the package `headrace`.
PYTHON_API = "reference/python.md"

#: A code block or a code span: links in it are no links.
_CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
#: The target of an inline link or of a named one, without its anchor.
_TARGET = re.compile(r"(\]\(|^\[[^\]]+\]: )(?![a-z]+:)([^)\s#]+)", re.MULTILINE)
#: A table, and the name in the first cell of a row.
_TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
_NAME = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
#: The languages of code blocks, by the ending of a file.
_LANGUAGES = {".py": "python", ".yml": "yaml", ".yaml": "yaml", ".json": "json", ".sh": "sh", ".go": "go"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file outside of docs/ that a page links to, and for those that these pages link to."""
    waiting = [(f"docs/{file.src_uri}", file.content_string) for file in files.documentation_pages()]
    added: set[str] = set()
    while waiting:
        path, text = waiting.pop()
        for target in _outside_targets(path, text):
            if target in added:
                continue
            added.add(target)
            content = _content(target)
            file = File.generated(config, _site_uri(target), content=content, inclusion=InclusionLevel.NOT_IN_NAV)
            files.append(file)
            if target.endswith(".md"):
                waiting.append((target, content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  # called by name
    """Let the links of a page lead to the pages of the site."""
    here = page.file.src_uri
    path = here.removeprefix(f"{OUTSIDE}/") if here.startswith(f"{OUTSIDE}/") else f"docs/{here}"

    def replace(match: re.Match[str]) -> str:
        target = _repository_path(path, match[2])
        if not (ROOT / target).exists():
            return match[0]  # MkDocs reports it
        return match[1] + posixpath.relpath(_site_uri(target), posixpath.dirname(here) or ".")

    markdown = _outside_of_code(markdown, lambda text: _TARGET.sub(replace, text))
    return _TABLE.sub(_with_docstrings, markdown) if here == PYTHON_API else markdown


def _with_docstrings(table: re.Match[str]) -> str:
    """Return a table of names, followed by an instruction to mkdocstrings for each."""
    return table[0] + "".join(f"\n::: headrace.{name}\n" for name in _NAME.findall(table[0]))


def _outside_targets(path: str, text: str) -> list[str]:
    """Return the files of the repository, outside of docs/, to which the text of the file `path` links."""
    targets = [_repository_path(path, target) for _, target in _TARGET.findall(_CODE.sub("", text))]
    return [t for t in targets if not t.startswith(("docs/", "..")) and (ROOT / t).is_file()]


def _repository_path(path: str, link: str) -> str:
    """Return the path in the repository of a link in the file `path`; a folder's is that of its README."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    return f"{target}/README.md" if (ROOT / target / "README.md").is_file() else target


def _site_uri(target: str) -> str:
    """Return the source path in the site of a file of the repository."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return f"{OUTSIDE}/{target}" if target.endswith(".md") else f"{OUTSIDE}/{target}.md"


def _content(target: str) -> str:
    """Return the Markdown of the page for a file outside of docs/."""
    text = (ROOT / target).read_text(encoding="utf-8")
    if target.endswith(".md"):
        return text
    language = _LANGUAGES.get(Path(target).suffix, "text")
    return f"---\nsearch:\n  exclude: true\n---\n\n# {target}\n\n````{language}\n{text.rstrip()}\n````\n"


def _outside_of_code(markdown: str, change: Callable[[str], str]) -> str:
    """Apply `change` to the parts of a page between its code."""
    changed, end = [], 0
    for code in _CODE.finditer(markdown):
        changed += [change(markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*changed, change(markdown[end:])])
