"""Operations, parameters and answers as OpenAPI 3.1 writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headrace.catalog.contract import Contract
from headrace_gateway.problem_types import PROBLEM_TYPES, TYPES

#: A part of the document.
Spec = dict[str, Any]

#: The problems that a request with a key may always have.
COMMON_PROBLEMS = ("unauthorized", "forbidden", "rate-limited", "broker-unavailable", "internal")

_RETRY_AFTER: Spec = {
    "description": "Seconds after which to repeat the request.",
    "schema": {"type": "integer", "minimum": 0},
}
#: The statuses that say when to try again.
_LATER = frozenset({429, 503})


def ref(component: str, kind: str = "schemas") -> Spec:
    """Return the reference to a component."""
    return {"$ref": f"#/components/{kind}/{component}"}


def component(contract: Contract) -> str:
    """Return the name by which the components of a version begin."""
    return f"{contract.model}.{contract.version}"


def json_content(schema: Spec, examples: Mapping[str, Any] | None = None, media: str = "application/json") -> Spec:
    """Return the content of a body: its schema, and examples by name."""
    content: Spec = {"schema": schema}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {media: content}


def answer(
    description: str,
    schema: Spec | None = None,
    *,
    headers: Spec | None = None,
    links: Spec | None = None,
    **more: Any,
) -> Spec:
    """Return an answer with a JSON body of a schema. `more` is passed to `json_content`."""
    spec: Spec = {"description": description}
    if headers:
        spec["headers"] = headers
    if schema is not None:
        spec["content"] = json_content(schema, **more)
    if links:
        spec["links"] = links
    return spec


def parameter(name: str, location: str, description: str, schema: Spec, **more: Any) -> Spec:
    """Return a parameter. `location` is path, query or header."""
    return {"name": name, "in": location, "description": description, "schema": schema, **more} | (
        {"required": True} if location == "path" else {}
    )


def operation(
    name: str,
    summary: str,
    description: str,
    *,
    tag: str,
    answers: Mapping[int, Spec],
    problems: Sequence[str] = (),
    parameters: Sequence[Spec] = (),
    body: Spec | None = None,
    is_public: bool = False,
    problem_media: str = "application/problem+json",
) -> Spec:
    """Return an operation. `problems` are the names of those besides COMMON_PROBLEMS."""
    spec: Spec = {"operationId": name, "summary": summary, "description": description, "tags": [tag]}
    if is_public:
        spec["security"] = []
    if parameters:
        spec["parameters"] = list(parameters)
    if body is not None:
        spec["requestBody"] = {"required": True, "content": body}
    common = () if is_public else COMMON_PROBLEMS
    spec["responses"] = {str(status): success for status, success in answers.items()}
    for status, response in problem_answers([*problems, *common], problem_media).items():
        spec["responses"].setdefault(status, response)
    return spec


def problem_answers(kinds: Iterable[str], media: str) -> Spec:
    """Return the answers of these problems: one for each status, with an example of each problem."""
    by_status: dict[int, list[str]] = {}
    for kind in kinds:
        for status in PROBLEM_TYPES[kind].statuses:
            if kind not in by_status.setdefault(status, []):
                by_status[status].append(kind)
    return {str(status): _problem_answer(status, names, media) for status, names in sorted(by_status.items())}


def _problem_answer(status: int, kinds: Sequence[str], media: str) -> Spec:
    headers = {"Retry-After": _RETRY_AFTER} if status in _LATER else None
    description = " Or: ".join(f"{PROBLEM_TYPES[kind].title}." for kind in kinds)
    spec = answer(description, headers=headers)
    spec["content"] = {
        media: {"schema": ref("Problem"), "examples": {kind: ref(kind, "examples") for kind in kinds}}
    }
    return spec


def problem_examples() -> Spec:
    """Return the components with an example of each type of problem."""
    return {kind: {"value": _example_problem(kind)} for kind in PROBLEM_TYPES}


def _example_problem(kind: str) -> Spec:
    problem = PROBLEM_TYPES[kind]
    return {
        "type": TYPES + kind,
        "title": problem.title,
        "status": problem.statuses[0],
        "detail": problem.meaning,
        "error": problem.meaning,
    }
