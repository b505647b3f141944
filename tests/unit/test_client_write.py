"""An input -> the body of a call."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from headrace import Image
from headrace.client.write import body_of, form, image_type, many_of
from headrace.gateway.multipart import parts
from headrace.gateway.read import read_form
from headrace.schema import Reader
from headrace.signature import json_schema


def picture(kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Pillow.new("RGB", (8, 8), (1, 2, 3)).save(out, kind)
    return out.getvalue()


@dataclass
class Row:
    name: str
    values: Any = None


class Point(msgspec.Struct, rename="camel"):
    top_left: int


class Person(pydantic.BaseModel):
    name: str
    age: int = pydantic.Field(alias="years")


@dataclass
class Pair:
    left: Image
    right: Image | None
    note: str
    maybe: str | None
    count: int


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (3, b"3"),
        ("text", b'"text"'),
        ([1, 2.5], b"[1,2.5]"),
        ({"a": None}, b'{"a":null}'),
        (np.arange(4.0).reshape(2, 2), b"[[0.0,1.0],[2.0,3.0]]"),
        (np.float32(0.5), b"0.5"),
        (Row("n", np.array([1, 2])), b'{"name":"n","values":[1,2]}'),
        (Point(3), b'{"topLeft":3}'),
        (Person(name="n", years=4), b'{"name":"n","years":4}'),
        ([Row("n")], b'[{"name":"n","values":null}]'),
        (b"no image", b'"' + base64.b64encode(b"no image") + b'"'),
        ([b"ab"], b'["' + base64.b64encode(b"ab") + b'"]'),
    ],
)
def test_json(value: Any, json: bytes) -> None:
    assert body_of(value) == ("application/json", json)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_one_image_goes_as_it_is(kind: str, tmp_path: Path) -> None:
    data, media_type = picture(kind), f"image/{kind.lower()}"
    (tmp_path / "picture").write_bytes(data)
    for value in (data, Image(data), tmp_path / "picture"):
        assert body_of(value) == (media_type, data)


def test_images_in_a_record_make_a_form(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(picture("PNG"))
    given = {"left": picture(), "right": tmp_path / "b.png", "note": "12", "rows": [1]}
    body = body_of(given)
    left, right, note, rows = parts(body.data, body.content_type.encode())
    assert (left.content_type, left.data) == (b"image/jpeg", picture())
    assert (right.content_type, right.data) == (b"image/png", picture("PNG"))
    assert (note.content_type, note.data) == (b"application/json", b'"12"')
    assert (rows.content_type, rows.data) == (b"application/json", b"[1]")


@pytest.mark.parametrize("maybe", [None, "", "12", "null", "true", "plain", '"quoted"'])
@pytest.mark.parametrize("note", ["12", "null", "ü"])
@pytest.mark.parametrize("second", [True, False])
def test_the_gateway_reads_the_form_as_what_was_given(
    maybe: str | None, note: str, second: bool
) -> None:
    """Texts that look like JSON, optional texts and optional images come through."""
    pair = Pair(Image(picture()), Image(picture("PNG")) if second else None, note, maybe, 3)
    body = body_of(pair)
    canonical = read_form(parts(body.data, body.content_type.encode()), Reader(json_schema(Pair)))
    assert msgspec.msgpack.decode(canonical) == {
        "left": picture(),
        "right": picture("PNG") if second else None,
        "note": note,
        "maybe": maybe,
        "count": 3,
    }


@settings(deadline=None)  # a busy machine proves nothing
@given(
    st.dictionaries(
        st.from_regex(r"[a-zA-Zäöü_ .\-]{1,8}", fullmatch=True),
        st.one_of(st.binary(max_size=50), st.text(), st.integers(-(2**60), 2**60), st.none()),
        min_size=1,
        max_size=8,
    )
)
def test_every_form_is_read_back(fields: dict[str, Any]) -> None:
    body = form(fields)
    found = parts(body.data, body.content_type.encode())
    assert [part.name for part in found] == list(fields)
    for part, value in zip(found, fields.values(), strict=True):
        if isinstance(value, bytes):
            assert part.data == value
        else:
            assert msgspec.json.decode(part.data) == value


def test_a_field_name_cannot_break_out_of_its_header() -> None:
    body = form({'a"\r\nX: y': 1}, boundary="edge")
    assert b'name="a%22%0D%0AX: y"' in body.data


def test_images_in_a_list_are_base64() -> None:
    assert msgspec.json.decode(many_of([picture()]).data) == [base64.b64encode(picture()).decode()]


def test_what_has_no_json_form() -> None:
    with pytest.raises(TypeError, match="an input holds a object"):
        body_of({"a": object()})


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        body_of(tmp_path / "none.jpg")


@settings(deadline=None)  # a busy machine proves nothing
@given(st.binary(max_size=16))
def test_image_type_takes_any_bytes(data: bytes) -> None:
    assert image_type(data) in (None, "image/jpeg", "image/png", "image/webp")
