"""Writes the JSON Schema of each command's `--json` into docs/reference/cli-json/: `make generate`.

With `--check` it writes nothing, and fails if a file is not current. A committed schema is the promise to users: a
field may be added, but neither removed nor given another type. A change that breaks this is refused, also without
`--check`, until `--breaking COMMAND` names the command.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from docs.schema_breaks import find_breaks
from headrace.batch.file import BatchReport
from headrace.bulk.progress import RunFailures
from headrace.catalog.aliases import AliasChange
from headrace.cli.dead_letter_format import ShownDeadLetter
from headrace.cli.doctor import CheckedFinding
from headrace.cli.json_objects import (
    BulkRun,
    ExplainedRun,
    JobCancellation,
    JobFailure,
    JobPrediction,
    JobStatus,
    Queue,
    SubmittedJob,
)
from headrace.cli.keys import ListedCaller
from headrace.cli.top_format import TopPage
from headrace.connection.functions import InstalledFunctions
from headrace.dead_letters.bulk import BulkResult
from headrace.dead_letters.groups import DeadLetterGroup
from headrace.inspection.timeline import Timeline
from headrace.monitor.plan import ModelPlan
from headrace.results.purge import PurgeResult
from headrace.wire.dead_letter import DeadLetter
from headrace_worker.cli.models_compare import ComparedVersion
from headrace_worker.cli.models_diff import VersionChanges
from headrace_worker.cli.models_drift import DriftedColumn
from headrace_worker.cli.models_list import ListedModel
from headrace_worker.cli.models_maintenance import CheckedVersion
from headrace_worker.cli.models_rollout import ListedAlias
from headrace_worker.manifest import Manifest
from headrace_worker.rollout.promotion import Promotion
from headrace_worker.rollout.publication import Publication
from headrace_worker.store.garbage import CollectionItem

FOLDER = Path(__file__).parent / "reference" / "cli-json"

Schema = dict[str, Any]

#: The types of the objects that each command prints with `--json`.
OBJECTS: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "batch": (BatchReport,),
    "bulk cancel": (BulkRun,),
    "bulk failures": (RunFailures,),
    "bulk list": (BulkRun,),
    "bulk resume": (BulkRun,),
    "bulk status": (BulkRun,),
    "bulk submit": (BulkRun,),
    "bulk wait": (BulkRun,),
    "cancel": (JobCancellation,),
    "dead list": (DeadLetterGroup, DeadLetter),
    "dead purge": (BulkResult,),
    "dead replay": (BulkResult,),
    "dead show": (ShownDeadLetter,),
    "doctor": (CheckedFinding,),
    "explain": (Timeline, ExplainedRun),
    "keys list": (ListedCaller,),
    "models add": (Manifest,),
    "models aliases": (ListedAlias,),
    "models compare": (ComparedVersion,),
    "models diff": (VersionChanges,),
    "models drift": (DriftedColumn,),
    "models gc": (CollectionItem,),
    "models history": (AliasChange,),
    "models list": (ListedModel,),
    "models promote": (Promotion,),
    "models publish": (Publication,),
    "models rollback": (Promotion,),
    "models show": (Manifest,),
    "models verify": (CheckedVersion,),
    "plan": (ModelPlan,),
    "queues": (Queue,),
    "queues purge": (PurgeResult,),
    "redis install": (InstalledFunctions,),
    "result": (JobPrediction, JobFailure),
    "status": (JobStatus,),
    "submit": (SubmittedJob, JobPrediction),
    "top": (TopPage,),
}


def main() -> int:
    """Write the schemas, or compare them."""
    parser = argparse.ArgumentParser(description="Write the JSON Schema of each command's --json.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not current")
    parser.add_argument("--breaking", action="append", default=[], metavar="COMMAND", help="let its form break")
    options = parser.parse_args()
    files = {FOLDER / file_name(command): make_schema(command) for command in OBJECTS}
    for command, (file, schema) in zip(OBJECTS, files.items(), strict=True):
        if not file.exists() or command in options.breaking:
            continue
        if breaks := list(find_breaks(json.loads(file.read_text(encoding="utf-8")), schema)):
            sys.stderr.write(f"`headrace {command} --json` breaks its promise: {'; '.join(breaks)}\n")
            return 1
    gone = sorted(set(FOLDER.glob("*.json")) - set(files))
    if unnamed := [file for file in gone if file.stem.replace("-", " ") not in options.breaking]:
        sys.stderr.write(f"{', '.join(map(str, unnamed))}: the command has no --json any more\n")
        return 1
    texts = {file: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for file, schema in files.items()}
    stale = [file for file, text in texts.items() if not file.exists() or file.read_text(encoding="utf-8") != text]
    stale += gone
    if options.check:
        for file in stale:
            sys.stderr.write(f"{file} is not what the code says; run `make generate`\n")
        return bool(stale)
    FOLDER.mkdir(exist_ok=True)
    for file in stale:
        file.write_text(texts[file], encoding="utf-8") if file in texts else file.unlink()
    return 0


def find_commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the names of all commands with `--json`, such as `dead list`."""
    if any("--json" in parameter.opts for parameter in command.params):
        yield " ".join(path)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            if (child := command.get_command(context, name)) is not None:
                yield from find_commands(child, (*path, name))


def file_name(command: str) -> str:
    """Return the name of a command's schema: `dead-list.json`."""
    return f"{command.replace(' ', '-')}.json"


def make_schema(command: str) -> Schema:
    """Return the schema of an object that a command prints. It permits fields that a later release may add."""
    types = OBJECTS[command]
    (*roots,), definitions = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    structs = {kind.__name__: kind for kind in find_structs(types)}
    for name, definition in definitions.items():
        if name in structs:
            _describe(structs[name], definition)
    _merge_types([roots, definitions])
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"headrace {command} --json"}
    root = roots[0] if len(roots) == 1 else {"anyOf": roots}
    return {**head, **root, "$defs": dict(sorted(definitions.items()))}


def find_structs(types: tuple[type[msgspec.Struct], ...]) -> Iterator[type[msgspec.Struct]]:
    """Yield the structs that objects of these types may hold, themselves included."""
    visited: set[int] = set()
    remaining: list[Any] = list(msgspec.inspect.multi_type_info(types))
    while remaining:
        value = remaining.pop()
        if id(value) in visited or not isinstance(value, msgspec.Struct | tuple):
            continue
        visited.add(id(value))
        if isinstance(value, msgspec.inspect.StructType):
            yield value.cls
        fields = value if isinstance(value, tuple) else [getattr(value, name) for name in value.__struct_fields__]
        remaining.extend(fields)


def _merge_types(value: Any) -> None:
    """Write `anyOf` of plain types as a list of types, as a person would."""
    if isinstance(value, dict):
        choices = value.get("anyOf", ())
        if choices and all(choice.keys() == {"type"} for choice in choices):
            del value["anyOf"]
            value["type"] = [choice["type"] for choice in choices]
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _merge_types(child)


def _describe(kind: type[msgspec.Struct], definition: Schema) -> None:
    """Say which fields are always there, and what they mean: the comment above a field in the code."""
    comments = {name: text for base in reversed(kind.__mro__) for name, text in _read_comments(base)}
    required = []
    for field in msgspec.structs.fields(kind):
        schema = definition["properties"][field.encode_name]
        if not ((kind.__struct_config__.omit_defaults and not field.required) or "UnsetType" in str(field.type)):
            required.append(field.encode_name)
            schema.pop("default", None)
        if field.name in comments:
            schema["description"] = comments[field.name]
    if tag_field := kind.__struct_config__.tag_field:
        required.insert(0, tag_field)
    definition["required"] = required


def _read_comments(kind: type) -> Iterator[tuple[str, str]]:
    """Yield the fields that have a comment of `#:` above them, with its text."""
    if not issubclass(kind, msgspec.Struct) or kind is msgspec.Struct:
        return
    lines: list[str] = []
    for line in map(str.strip, inspect.getsource(kind).splitlines()):
        if line.startswith("#: "):
            lines.append(line.removeprefix("#: "))
        elif (match := re.match(r"(\w+): ", line)) and lines:
            yield match[1], _name_null(" ".join(lines))
            lines = []
        else:
            lines = []


def _name_null(text: str) -> str:
    """Return a comment as a reader of JSON has it: None is null."""
    if "null" in text:
        return text
    return re.sub(r"\bNone\b", "null", re.sub(r"(^|[.:] )None\b", r"\1Null", text))


if __name__ == "__main__":
    sys.exit(main())
