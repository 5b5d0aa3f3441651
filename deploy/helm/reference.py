"""Writes what the chart's values.schema.json says of each value: `make generate`.

It goes into docs/reference/chart.md, and into the comments of values.yaml. With `--check` it writes nothing, and
fails if one of them is not current.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "headrace"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "chart.md"

HEAD = """\
# Chart

All values of the Helm chart in [deploy/helm/headrace](../../deploy/helm/headrace/values.yaml). Helm refuses any
other name, and any value of another type or form. [Run on Kubernetes](../how-to/run-on-kubernetes.md) says how to
use them.

This page and the comments of `values.yaml` are generated from `values.schema.json`: change that, then run
`make generate`.
"""

#: The title of the section of values that have no section of their own.
GENERAL = "General"

Schema = dict[str, Any]


def main() -> int:
    """Write the page and the comments, or compare them."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    outputs = {
        PAGE: render_page(schema, yaml.safe_load(text)),
        CHART / "values.yaml": comment_values(schema, text),
    }
    for file, content in outputs.items():
        if "--check" not in sys.argv[1:]:
            file.write_text(content, encoding="utf-8")
        elif not file.exists() or file.read_text(encoding="utf-8") != content:
            sys.stderr.write(f"{file} is not what the chart's schema says; run `make generate`\n")
            return 1
    return 0


def comment_values(schema: Schema, text: str) -> str:
    """Return the text of values.yaml with the description of each value above it, in place of its comments."""
    head, _, body = text.partition("\n\n")
    lines, path = [head, ""], [schema]
    for line in body.splitlines():
        if line.lstrip().startswith("#"):
            continue
        if match := re.match(r"( *)(\w+):", line):
            indent, name = match.groups()
            path = path[: len(indent) // 2 + 1]
            path.append(resolve(path[-1], schema["definitions"]).get("properties", {}).get(name, {}))
            description = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", path[-1].get("description", ""))
            lines += textwrap.wrap(description, 100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        lines.append(line)
    return "\n".join(lines) + "\n"


def resolve(item: Schema, definitions: Schema) -> Schema:
    """Return the definition that an item refers to, or the item."""
    reference = item["allOf"][0] if "allOf" in item else item
    resolved: Schema = definitions[reference["$ref"].rpartition("/")[2]] if "$ref" in reference else item
    return resolved


def render_page(schema: Schema, values: Schema) -> str:
    """Return the page: a section for each group of values, with a table of its values."""
    definitions = schema["definitions"]
    properties = schema["properties"]
    sections: dict[str, dict[str, str]] = {GENERAL: {}}
    for name, item in properties.items():
        section = sections.setdefault(name if has_section(item) else GENERAL, {})
        section.update(find_rows(name, item, values.get(name), definitions))
    return "\n".join([HEAD, *(render_section(*section, properties) for section in sections.items())])


def has_section(item: Schema) -> bool:
    """Return whether a value has a section of its own."""
    return "allOf" in item or bool(described(item))


def described(item: Schema) -> dict[str, Schema]:
    """Return the values under an item that have descriptions."""
    children = item.get("properties", {}).items()
    return {name: child for name, child in children if isinstance(child, dict) and "description" in child}


def find_rows(path: str, item: Schema, value: Any, definitions: Schema) -> Iterator[tuple[str, str]]:
    """Yield the path of each value under an item, and its row: path, type, default and description."""
    target = resolve(item, definitions)
    if children := described(target):
        for name, child in children.items():
            yield from find_rows(f"{path}.{name}", child, (value or {}).get(name), definitions)
        return
    default = "" if value is None else f"`{json.dumps(value)}`"
    yield path, f"| `{path}` | {type_of(target)} | {default} | {item['description']} |"


def type_of(item: Schema) -> str:
    """Return the words for the type of a value."""
    if "enum" in item:
        return " or ".join(f"`{choice}`" for choice in item["enum"])
    names = item["type"] if isinstance(item["type"], list) else [item["type"]]
    words = {"boolean": "true or false", "array": "list", "object": "map", "string": "text"}
    return " or ".join(words.get(name, name) for name in names if name != "null")


def render_section(name: str, rows: dict[str, str], properties: Schema) -> str:
    """Return a section: its title, what the group is, and the table."""
    head = "| value | type | default | meaning |\n| --- | --- | --- | --- |"
    title = name if name not in properties else f"`{name}`"
    text = f"{properties[name]['description']}.\n\n" if name in properties else ""
    table = "\n".join([head, *rows.values()])
    return f"## {title}\n\n{text}<!-- values -->\n\n{table}\n\n<!-- -->\n"


if __name__ == "__main__":
    sys.exit(main())
