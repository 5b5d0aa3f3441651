"""JSON schemas of the bodies of requests, made from the structs that read them, and typed for each model."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.catalog.contract import Contract
from headrace_gateway.job_routes import JobBody, NamedJobBody
from headrace_gateway.openapi.build import Spec, component, ref
from headrace_gateway.predict import Parameters, PredictBody

_TEMPLATE = "#/components/schemas/{name}"
_YEAR = 366 * 86_400
#: What the members mean, and what the structs leave to the check of options.
_MEMBERS: dict[str, Spec] = {
    "instances": {"description": "The instances to predict, at least one.", "minItems": 1},
    "version": {
        "description": "A version or an alias; the version that serves otherwise.",
        "minLength": 1,
        "maxLength": 64,
    },
    "priority": {"description": "0 (first) to 9 (last).", "enum": [*range(10)]},
    "expires": {
        "description": "Seconds after which the job is not started any more.",
        "minimum": 0.001,
        "maximum": _YEAR,
    },
    "delay": {"description": "Seconds before which the job is not started.", "minimum": 0, "maximum": _YEAR},
    "metadata": {
        "description": "Your own notes about the job, at most 4,096 bytes. They travel with it; not for secrets."
    },
    "durable": {
        "description": "Answer only when neither a restart of Redis nor a failover can lose the job.",
    },
    "notify": {
        "description": "The name of the endpoint that is notified of the outcome.",
        "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$",
    },
}


def request_schemas(contract: Contract) -> Spec:
    """Return the components of a model's requests: the bodies of `:predict`, of a job, and of a job with an id."""
    name = component(contract)
    instances = {"type": "array", "items": ref(f"{name}.Instance"), **_MEMBERS["instances"]}
    parameters = ref(f"{name}.Parameters")
    bodies = {
        f"{name}.Request": struct_schema(PredictBody),
        f"{name}.VersionRequest": struct_schema(PredictBody),
        f"{name}.JobRequest": struct_schema(JobBody),
        f"{name}.NamedJobRequest": struct_schema(NamedJobBody),
    }
    for schema in bodies.values():
        schema["properties"] |= {"instances": instances, "parameters": parameters}
        if "model" in schema["properties"]:
            schema["properties"]["model"] = {"enum": [contract.model]}
    options = struct_schema(Parameters)
    options["properties"]["method"] = {
        "description": "A method of the model; the first is its own default.",
        "enum": [*contract.methods, None],
    }
    # The path names the version already.
    unversioned = {key: member for key, member in options["properties"].items() if key != "version"}
    bodies[f"{name}.VersionRequest"]["properties"]["parameters"] = ref(f"{name}.VersionParameters")
    return {
        f"{name}.Parameters": options,
        f"{name}.VersionParameters": {**options, "properties": unversioned},
        **bodies,
    }


def struct_schema(struct: type[msgspec.Struct]) -> Spec:
    """Return the schema of a struct, with what its members mean."""
    schemas: dict[str, Spec] = msgspec.json.schema(struct, ref_template=_TEMPLATE)["$defs"]
    schema = schemas[struct.__name__]
    schema.pop("title")
    schema["properties"] = {name: _member(name, member) for name, member in schema["properties"].items()}
    return schema


def _member(name: str, schema: Spec) -> Spec:
    extra = _MEMBERS.get(name, {})
    kinds: list[Any] = [kind["type"] for kind in schema.get("anyOf", ()) if set(kind) == {"type"}]
    if kinds and len(kinds) == len(schema["anyOf"]):  # {"anyOf": [{"type": "string"}, {"type": "null"}]}
        schema = {"type": kinds, "default": schema["default"]}
    if "enum" in extra and "null" in kinds:
        extra = {**extra, "enum": [*extra["enum"], None]}
    return {**schema, **extra}
