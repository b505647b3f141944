"""The bodies of V2 REST: JSON, or JSON with the tensors' raw bytes behind it.

{"id", "parameters", "inputs": [{"name", "shape", "datatype", "data"}], "outputs": [{"name"}]}
                     binary:                                "parameters": {"binary_data_size": n}
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.errors import BadRequest, Invalid, Refusal
from headrace.gateway.v2_infer import check_parameters
from headrace.gateway.v2_tensors import (
    Head,
    WireTensor,
    from_json,
    from_raw,
    json_values,
    raw_bytes,
    wrong,
)
from headrace.schema import check_pairs
from headrace.signature import invalid

SMALL = 1024  # bytes of `data` that are not worth leaving out when keys are checked


class Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class Body(msgspec.Struct):
    """What a client posted to `infer`."""

    inputs: list[Input]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[Output] = []

    def binary(self, name: str) -> bool:
        """Does the client want this output as raw bytes?"""
        for output in self.outputs:
            if output.name == name and "binary_data" in output.parameters:
                return output.parameters["binary_data"] is True
        return self.parameters.get("binary_data_output") is True


_decode = msgspec.json.Decoder(Body).decode
_encode = msgspec.json.Encoder().encode


def parse(body: bytes, json_size: bytes | None) -> tuple[Body, int]:
    """What is asked, and where the binary data begins. `json_size`: the header
    Inference-Header-Content-Length. Raises Refusal."""
    if not body:
        raise BadRequest("the body is empty", code="empty-body")
    size = len(body) if json_size is None else _json_size(json_size, len(body))
    head = body[:size]
    try:
        asked = _decode(head)
    except msgspec.ValidationError as error:
        raise _wrong_type(head, error) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _malformed(error) from None
    for part in asked.inputs:
        check_parameters(tuple(part.parameters))
    for output in asked.outputs:
        check_parameters(tuple(output.parameters))
    return asked, size


def heads(asked: Body) -> list[Head]:
    return [Head(part.name, part.datatype, tuple(part.shape)) for part in asked.inputs]


def _json_size(value: bytes, most: int) -> int:
    if not value.isdigit() or len(value) > 15 or not 0 < int(value) <= most:
        raise BadRequest(
            "Inference-Header-Content-Length: expected the bytes of JSON before the binary data",
            code="bad-request-framing",
        )
    return int(value)


def _wrong_type(data: bytes, error: Exception) -> Refusal:
    """The typed decoder stops at the first wrong type: is the rest JSON at all?"""
    try:
        msgspec.json.decode(data)
    except msgspec.ValidationError:
        pass
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as worse:
        return _malformed(worse)
    if "out of range" in str(error):
        return BadRequest("a number is out of range", code="json-limits")
    return invalid(str(error))


def _malformed(error: Exception) -> BadRequest:
    if isinstance(error, RecursionError):
        return BadRequest("the JSON is nested too deep", code="json-limits")
    if isinstance(error, UnicodeDecodeError) or "surrogate" in str(error):
        return BadRequest("a string is not Unicode text", code="json-limits")
    return BadRequest(str(error), code="malformed-json")


def read_tensors(asked: Body, body: bytes, at: int) -> list[WireTensor]:
    """The inputs with their data, of which the binary begins at `at`. Raises Refusal."""
    _check_keys(asked, body[:at])
    tensors = []
    for part, head in zip(asked.inputs, heads(asked), strict=True):
        size = part.parameters.get("binary_data_size")
        if (size is None) is (part.data is msgspec.UNSET):
            raise wrong(part.name, "expected either data or binary_data_size")
        if isinstance(part.data, msgspec.Raw):
            tensors.append(from_json(head, bytes(part.data)))
            continue
        if type(size) is not int or not 0 <= size <= len(body) - at:
            raise wrong(part.name, "binary_data_size is not within the body")
        tensors.append(from_raw(head, body[at : at + size]))
        at += size
    if at != len(body):
        detail = f"{len(body) - at} bytes behind the last tensor"
        raise Invalid(detail, code="tensor-invalid")
    return tensors


def _check_keys(asked: Body, head: bytes) -> None:
    """Keys that come twice are looked for outside the data, which is lists of plain values."""
    for part in asked.inputs:
        data = bytes(part.data) if isinstance(part.data, msgspec.Raw) else b""
        if len(data) > SMALL:
            head = head.replace(data, b"[]", 1)
    check_pairs(head)


def write_body(
    asked: Body, model: str, version: str, outputs: list[WireTensor]
) -> tuple[bytes, int]:
    """The answer's body, and the size of the JSON at its head (0 where that is all)."""
    tail: list[bytes] = []
    described = []
    for tensor in outputs:
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
        }
        if asked.binary(tensor.name):
            raw = raw_bytes(tensor)
            tail.append(raw)
            described.append(entry | {"parameters": {"binary_data_size": len(raw)}})
        else:
            described.append(entry | {"data": json_values(tensor)})
    answer: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": described}
    if asked.id:
        answer["id"] = asked.id
    head = _encode(answer)
    return b"".join((head, *tail)), len(head) if tail else 0
