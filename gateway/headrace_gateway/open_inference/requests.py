"""The request of `infer`: from its bytes to named tensors, and the outputs it asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from headrace.errors import InvalidInput
from headrace_gateway.json_input import decode_json
from headrace_gateway.open_inference.tensors import (
    DATATYPES,
    MAX_RANK,
    Tensor,
    decode_bytes,
    decode_content,
    decode_list,
    malformed,
)

#: The header with the bytes of the JSON part of a body; the binary data of tensors follows it.
JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
#: Most inputs of a request. Each costs more than its bytes.
_MAX_INPUTS = 16_384
_MAX_LENGTH = 2**63 - 1
#: Microseconds of a second, the unit of `parameters.timeout`.
_MICROSECONDS = 1_000_000

_Parameters = dict[str, Any] | None


class _Input(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    shape: list[int]
    datatype: str
    parameters: _Parameters = None
    data: Any = None


class _Output(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    parameters: _Parameters = None


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[_Input]
    id: str | None = None
    parameters: _Parameters = None
    outputs: list[_Output] | None = None
    # KServe's SDK sends the name that is in the path already.
    model_name: Any = None
    model_version: Any = None


_BODY = msgspec.json.Decoder(_Body)
_FIELDS = {"": _Body.__struct_fields__}


class RequestedOutput(NamedTuple):
    """An output that a request asks for."""

    name: str
    #: True if its data is to follow the JSON part as bytes.
    binary: bool


class InferRequest(NamedTuple):
    """A request of `infer`."""

    id: str | None
    inputs: list[Tensor]
    #: Empty: the default output.
    outputs: list[RequestedOutput]
    #: True if the default output is to follow the JSON part as bytes.
    binary: bool
    priority: int
    #: Seconds in which the prediction must start; None is no limit.
    expires: float | None


def decode_request(body: bytes, json_length: str | None, *, max_values: int) -> InferRequest:
    """Return the request in a body. `json_length` is the text of its `Inference-Header-Content-Length`, if any.

    Raises a Problem (400) that names what is wrong, for all that contradicts itself: sizes, shapes, datatypes.
    Raises InvalidInput for inputs of more than `max_values` values, before they are read from binary data.
    """
    whole = memoryview(body)
    length = len(whole) if json_length is None else _read_json_length(json_length, len(whole))
    request = decode_json(body if length == len(body) else body[:length], _BODY, _FIELDS)
    parameters = request.parameters or {}
    inputs = _decode_inputs(request.inputs, whole[length:], max_values)
    binary = _flag(parameters, "binary_data_output", "the parameters")
    return InferRequest(
        id=request.id,
        inputs=inputs,
        outputs=[_read_output(output, binary=binary) for output in request.outputs or ()],
        binary=binary,
        priority=_read_count(parameters, "priority", "the parameters") or 0,
        expires=_read_timeout(parameters),
    )


def _read_json_length(text: str, size: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20) or not 0 < int(text) <= size:
        raise malformed(
            f"the header {JSON_LENGTH_HEADER} must be the bytes of the JSON part, 1 to {size:,} of this body"
        )
    return int(text)


def _decode_inputs(inputs: list[_Input], data: memoryview, max_values: int) -> list[Tensor]:
    if not inputs:
        raise malformed("`inputs` is empty; a request needs at least one tensor")
    if len(inputs) > _MAX_INPUTS:
        raise malformed(f"`inputs` has {len(inputs):,} tensors, more than the {_MAX_INPUTS:,} a request may have")
    tensors: dict[str, Tensor] = {}
    position = total = 0
    for entry in inputs:
        name = f"input {entry.name[:64]!r}"
        if entry.name in tensors:
            raise malformed(f"{name} is given twice")
        count = _count_values(name, entry)
        total += count
        if total > max_values:
            raise InvalidInput(
                f"the inputs hold more values than the {max_values:,} of HEADRACE_MAX_JOB_VALUES; send fewer "
                "instances in a request"
            )
        size = _read_count(entry.parameters or {}, "binary_data_size", name)
        if size is None:
            if entry.data is None:
                raise malformed(f"{name} has neither `data` nor `parameters.binary_data_size`{_hint(entry)}")
            values = decode_list(name, entry.datatype, entry.shape, entry.data)
        else:
            if entry.data is not None:
                raise malformed(f"{name} has both `data` and `parameters.binary_data_size`; send one of them")
            if size > len(data) - position:
                raise malformed(
                    f"{name}: its binary_data_size is more than the binary data that is left for it; "
                    f"the header {JSON_LENGTH_HEADER} says where binary data begins"
                )
            values = decode_bytes(name, entry.datatype, count, data[position : position + size])
            position += size
        if entry.datatype == "BYTES":
            values = decode_content(name, (entry.parameters or {}).get("content_type"), values)
        tensors[entry.name] = Tensor(entry.name, entry.datatype, tuple(entry.shape), values)
    if position != len(data):
        raise malformed(f"{len(data) - position:,} bytes of binary data belong to no input")
    return list(tensors.values())


def _count_values(name: str, entry: _Input) -> int:
    """Return the values that a tensor's shape takes. Raises a Problem."""
    if entry.datatype not in DATATYPES:
        raise malformed(f"{name}: its datatype is not one of {', '.join(sorted(DATATYPES))}")
    shape = entry.shape
    if not shape or len(shape) > MAX_RANK:
        raise malformed(f"{name}: its shape must have 1 to {MAX_RANK} dimensions, the first for the instances")
    if not all(0 < length <= _MAX_LENGTH for length in shape):
        raise malformed(f"{name}: each dimension of its shape must be at least 1")
    count = math.prod(shape)
    if count > _MAX_LENGTH:
        raise malformed(f"{name}: its shape takes more values than 64 bits can count")
    return count


def _hint(entry: _Input) -> str:
    shared = any(name.startswith("shared_memory") for name in entry.parameters or {})
    return "; shared memory is not supported" if shared else ""


def _read_output(output: _Output, *, binary: bool) -> RequestedOutput:
    parameters, name = output.parameters or {}, f"output {output.name[:64]!r}"
    if _read_count(parameters, "classification", name):
        raise malformed(f"{name}: `classification` is not supported; ask for the output predict_proba")
    binary = _flag(parameters, "binary_data", name) if "binary_data" in parameters else binary
    return RequestedOutput(output.name, binary)


def _read_timeout(parameters: Mapping[str, Any]) -> float | None:
    microseconds = _read_count(parameters, "timeout", "the parameters")
    return microseconds / _MICROSECONDS if microseconds else None


def _read_count(parameters: Mapping[str, Any], key: str, name: str) -> int | None:
    value = parameters.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_LENGTH:
        raise malformed(f"{name}: `{key}` must be an integer from 0")
    return value


def _flag(parameters: Mapping[str, Any], key: str, name: str) -> bool:
    value = parameters.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise malformed(f"{name}: `{key}` must be true or false")
    return value
