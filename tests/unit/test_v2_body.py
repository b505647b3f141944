"""The bodies of V2 REST: JSON and binary, good and bad."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest

from headrace.errors import BadRequest, Refusal
from headrace.gateway.v2_body import Body, heads, parse, read_tensors, write_body
from headrace.gateway.v2_tensors import Head, WireTensor, from_values

FLOATS = struct.pack("<2f", 1, 2)


def entry(**more: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], **more}


def body_of(*inputs: dict[str, Any], **more: Any) -> bytes:
    return msgspec.json.encode({"inputs": list(inputs), **more})


def read(body: bytes, json_size: bytes | None = None) -> tuple[Body, list[WireTensor]]:
    asked, at = parse(body, json_size)
    return asked, read_tensors(asked, body, at)


def test_json_with_numbers() -> None:
    asked, [tensor] = read(body_of(entry(data=[1, 2]), id="me", unknown={"kept": "out"}))
    assert asked.id == "me"
    assert heads(asked) == [Head("x", "FP32", (1, 2))]
    assert tensor.data == FLOATS


def test_json_then_binary() -> None:
    size = {"binary_data_size": 8}
    text = {"name": "t", "datatype": "BYTES", "shape": [1], "data": ["hi"]}
    head = body_of(entry(parameters=size), text, entry(name="y", parameters=size))
    other = struct.pack("<2f", 3, 4)
    _, tensors = read(head + FLOATS + other, b"%d" % len(head))
    assert [tensor.data for tensor in tensors] == [FLOATS, ["hi"], other]


def binary(size: object, tail: bytes = FLOATS) -> tuple[bytes, bytes]:
    head = body_of(entry(parameters={"binary_data_size": size}))
    return head + tail, b"%d" % len(head)


@pytest.mark.parametrize(
    ("body", "json_size", "code"),
    [
        (b"", None, "empty-body"),
        (b"{", None, "malformed-json"),
        (b"[]", None, "validation-failed"),
        (b"{}", None, "validation-failed"),
        (b'{"inputs":{}}', None, "validation-failed"),
        (b'{"inputs":[{"name":1}]}', None, "validation-failed"),
        (body_of(entry(shape=[1.5], data=[1])), None, "validation-failed"),
        (body_of(entry(shape="2", data=[1])), None, "validation-failed"),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[%b]}]}' % (b"9" * 100_000), None,
         "json-limits"),
        (b'{"inputs":[],"parameters":{"a":%s}}' % (b"[" * 5000 + b"]" * 5000), None, "json-limits"),
        (b'{"inputs":[],"id":"\\ud800"}', None, "malformed-json"),
        (b'{"inputs":[],"id":"\xff"}', None, "json-limits"),
        (b'{"inputs":[],"inputs":[]}', None, "malformed-json"),
        (b'{"inputs":[],"id":"a","id":"b"}', None, "malformed-json"),
        (b'{"inputs":[{"name":"x","name":"y","datatype":"FP32","shape":[1],"data":[1]}]}',
         None, "malformed-json"),
        (b'{"inputs":[],"id":"\\u0000"}', None, "json-limits"),
        (body_of(entry(data=[1, 2])) + b"x", None, "malformed-json"),
        (body_of(entry()), None, "tensor-invalid"),
        (body_of(entry(data=[1, 2], parameters={"binary_data_size": 8})), None, "tensor-invalid"),
        (body_of(entry(data=None)), None, "tensor-invalid"),
        (body_of(entry(data=[1, 2], parameters={"shared_memory_region": "r"})), None,
         "validation-failed"),
        (body_of(outputs=[{"name": "o", "parameters": {"classification": 3}}]), None,
         "validation-failed"),
        (b"{}", b"0", "bad-request-framing"),
        (b"{}", b"3", "bad-request-framing"),
        (b"{}", b"-1", "bad-request-framing"),
        (b"{}", b"9" * 30, "bad-request-framing"),
        (b"{}", b"two", "bad-request-framing"),
        (*binary(9), "tensor-invalid"),
        (*binary(-1), "tensor-invalid"),
        (*binary("8"), "tensor-invalid"),
        (*binary(True), "tensor-invalid"),
        (*binary(4), "tensor-invalid"),
        (*binary(8, FLOATS + b"x"), "tensor-invalid"),
        (*binary(8, FLOATS[:-1]), "tensor-invalid"),
    ],
)  # fmt: skip
def test_bodies_that_are_refused(body: bytes, json_size: bytes | None, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        read(body, json_size)
    assert refused.value.code == code
    assert refused.value.status == (400 if isinstance(refused.value, BadRequest) else 422)


def test_keys_are_looked_for_beside_large_data_too() -> None:
    data = list(range(1000))
    assert read(body_of(entry(shape=[1, 1000], data=data)))[1][0].shape == (1, 1000)
    twice = body_of(entry(shape=[1, 1000], data=data)).replace(b'"shape"', b'"name":"x","shape"')
    with pytest.raises(BadRequest, match="same key twice"):
        read(twice)


OUTPUTS = [
    from_values(Head("n", "FP32", (2,)), [1.5, 2.5]),
    from_values(Head("t", "BYTES", (2,)), ["a", b"\xff"]),
]


def test_an_answer_in_json() -> None:
    body, size = write_body(Body([], id="me"), "m", "3", OUTPUTS)
    assert size == 0
    assert msgspec.json.decode(body) == {
        "model_name": "m",
        "model_version": "3",
        "id": "me",
        "outputs": [
            {"name": "n", "datatype": "FP32", "shape": [2], "data": [1.5, 2.5]},
            {"name": "t", "datatype": "BYTES", "shape": [2], "data": ["a", "/w=="]},
        ],
    }


def test_an_answer_in_binary() -> None:
    body, size = write_body(Body([], parameters={"binary_data_output": True}), "m", "3", OUTPUTS)
    described = msgspec.json.decode(body[:size])["outputs"]
    assert [each["parameters"] for each in described] == [
        {"binary_data_size": 8},
        {"binary_data_size": 10},
    ]
    assert body[size:] == struct.pack("<2f", 1.5, 2.5) + b"\1\0\0\0a\1\0\0\0\xff"


def test_an_output_says_for_itself_how_it_is_wanted() -> None:
    asked = msgspec.convert(
        {
            "inputs": [],
            "parameters": {"binary_data_output": True},
            "outputs": [{"name": "n", "parameters": {"binary_data": False}}, {"name": "t"}],
        },
        Body,
    )
    assert (asked.binary("n"), asked.binary("t")) == (False, True)
