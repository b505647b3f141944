"""The type is the API: a model's annotations -> JSON schemas and codecs.

    predict(self, items: list[In]) -> list[Out]  =>  Signature(In, Out, schemas, decode, encode)

Used where the author's types exist: in the model process and in `headrace check`. The gateway has
the schemas alone (see `schema`). Between the two, values travel as *canonical* msgpack: structs are
maps, arrays extension 1 (see `tensors`), images raw bytes.
"""

from __future__ import annotations

import base64
import re
import types
import typing
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin

import msgspec

from headrace import images, tensors
from headrace.errors import FieldError, Invalid, ItemError, Refusal
from headrace.jobs import Form
from headrace.model import Model


class SignatureError(Exception):
    """The annotations of a model do not say what it takes or gives."""


class Card(msgspec.Struct, frozen=True):
    """What the house knows of a model without its code: enough for checking and documentation."""

    name: str
    version: str
    description: str
    input: dict[str, Any]
    output: dict[str, Any]
    max_size: int
    max_wait_ms: float = 0.0


class Signature:
    """The input and output type of one model, with their schemas and codecs."""

    def __init__(self, model: type[Model]) -> None:
        """Raises SignatureError where `predict` is not `(list[In]) -> list[Out]`."""
        self.input, self.output = _item_types(model)
        try:
            self.input_schema = json_schema(self.input)
            self.output_schema = json_schema(self.output)
        except TypeError as error:
            raise SignatureError(f"{model.__qualname__}.predict: {error}") from None
        self._decode = msgspec.msgpack.Decoder(
            self.input, dec_hook=_from_wire, ext_hook=_from_ext
        ).decode
        self._encode: dict[Form, Callable[[Any], bytes]] = {
            Form.JSON: msgspec.json.Encoder(enc_hook=_to_json).encode,
            Form.CANONICAL: msgspec.msgpack.Encoder(enc_hook=_to_wire).encode,
        }

    def decode(self, body: bytes) -> Any:
        """Canonical bytes -> the author's input. Raises Refusal where it is not one."""
        try:
            return self._decode(body)
        except msgspec.ValidationError as error:
            raise invalid(str(error)) from None
        except Refusal:
            raise
        except Exception:  # an author's __post_init__, say: this input's fault, not its batch's
            raise Invalid("the input cannot be read as what the model takes") from None

    def encode(self, result: Any, form: Form) -> bytes:
        """A result of `predict` -> bytes. Raises TypeError where it cannot be written."""
        return self._encode[form](result)

    def conforms(self, result: Any) -> None:
        """Raises msgspec.ValidationError where a result is not of the declared output type."""
        plain = msgspec.to_builtins(result, enc_hook=_keep)
        msgspec.convert(plain, self.output, dec_hook=_from_wire)


def card(model: type[Model], signature: Signature) -> Card:
    return Card(
        name=model.name,
        version=model.version,
        description=_description(model),
        input=signature.input_schema,
        output=signature.output_schema,
        max_size=model.batching.max_size,
        max_wait_ms=model.batching.max_wait_ms,
    )


def _description(model: type[Model]) -> str:
    import inspect

    return inspect.cleandoc(model.__doc__ or "")


def _item_types(model: type[Model]) -> tuple[Any, Any]:
    try:
        hints = typing.get_type_hints(model.predict, include_extras=True)
    except NameError as error:
        raise SignatureError(f"{model.__qualname__}.predict: {error}") from None
    result = hints.pop("return", None)
    parameters = list(hints.values())
    if len(parameters) != 1 or get_origin(parameters[0]) is not list:
        raise SignatureError(
            f"{model.__qualname__}.predict: expected one parameter annotated list[Input], "
            "such as `def predict(self, rows: list[Row]) -> list[Score]`"
        )
    if get_origin(result) is not list:
        raise SignatureError(
            f"{model.__qualname__}.predict: expected the return annotation list[Output]"
        )
    return get_args(parameters[0])[0], _without_item_error(get_args(result)[0])


def _without_item_error(output: Any) -> Any:
    """list[Score | ItemError] says out loud what every output may be; the type is Score."""
    if get_origin(output) not in (Union, types.UnionType):
        return output
    rest = tuple(kind for kind in get_args(output) if kind is not ItemError)
    return Union[rest]  # noqa: UP007 - built at run time


def _is_pydantic(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "model_validate")


def json_schema(kind: Any) -> dict[str, Any]:
    """The JSON schema (2020-12) of a type. Raises TypeError for what has none."""
    inner: dict[str, Any] = {}
    raw = msgspec.json.schema(kind, schema_hook=_schema_hook)
    schema: dict[str, Any] = _hoist(raw, inner)
    if inner:
        schema["$defs"] = {**inner, **schema.get("$defs", {})}
    return schema


def _schema_hook(kind: type) -> dict[str, Any]:
    if kind is images.Image:
        return {
            "type": "string",
            "contentEncoding": "base64",
            "contentMediaType": "image/*",
            images.SCHEMA_KEY: True,
        }
    if _is_pydantic(kind):
        return dict(kind.model_json_schema())  # type: ignore[attr-defined]
    if kind.__module__ == "numpy" and kind.__name__ == "ndarray":
        return {"type": "array"}
    raise TypeError(
        f"{kind!r} is not a type that Headrace can document: use a dataclass, a msgspec struct, a "
        "pydantic model, headrace.Image or Annotated[np.ndarray, headrace.Tensor(dtype, shape)]"
    )


def _hoist(node: Any, found: dict[str, Any]) -> Any:
    """Moves the $defs that pydantic nests to the root, where their $refs point."""
    if isinstance(node, list):
        return [_hoist(item, found) for item in node]
    if not isinstance(node, dict):
        return node
    clean = {key: _hoist(value, found) for key, value in node.items() if key != "$defs"}
    for name, definition in node.get("$defs", {}).items():
        found[name] = _hoist(definition, found)
    return clean


def _from_ext(code: int, data: memoryview) -> Any:
    if code == tensors.TENSOR_EXT:
        return tensors.to_numpy(data)
    return msgspec.msgpack.Ext(code, bytes(data))


def _from_wire(kind: type, value: Any) -> Any:
    """msgspec asks here for types that it does not know."""
    if isinstance(kind, type) and isinstance(value, kind):
        return value
    if kind is images.Image:
        image = images.Image(_image_bytes(value))
        image.array()  # an undecodable image is its own item's error, not the batch's
        return image
    if _is_pydantic(kind):
        return _from_pydantic(kind, value)
    raise NotImplementedError(f"no way to read {kind!r}")


def _image_bytes(value: Any) -> bytes:
    """Raw, or in base64 where the gateway could not know that it is an image (in a union)."""
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:
            raise invalid("Invalid base64 encoded string") from None
    return bytes(value)


def _from_pydantic(kind: Any, value: Any) -> Any:
    try:
        return kind.model_validate(value)
    except ValueError as error:
        details: list[dict[str, Any]] = getattr(error, "errors", list)()
        raise Invalid(
            f"{len(details)} fields are wrong",
            errors=[
                FieldError("/" + "/".join(map(str, d["loc"])), d["type"], d["msg"]) for d in details
            ],
        ) from None


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and hasattr(value, "tolist")


def _to_json(value: Any) -> Any:
    if _is_array(value):  # numpy arrays and scalars
        return value.tolist()
    if isinstance(value, images.Image):
        return value.data
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"a result holds {type(value).__name__!r}, which has no JSON form")


def _to_wire(value: Any) -> Any:
    if _is_array(value):
        return tensors.from_numpy(value) if value.ndim else value.item()
    return _to_json(value)


def _keep(value: Any) -> Any:
    """For `conforms`: arrays and images stay themselves, numpy scalars become Python's."""
    if _is_array(value) and not value.ndim:
        return value.item()
    return value


#: What msgspec repeats of the input: the name of an unknown field, a value that is not in an enum.
_ECHO = re.compile(r"(?<=unknown field) `.*`|(?<=value) '.*'", re.DOTALL)


def invalid(message: str) -> Refusal:
    """msgspec's "Expected `int`, got `str` - at `$.rows[0]`" -> Invalid with a JSON pointer."""
    detail, _, path = message.partition(" - at `")
    detail = _ECHO.sub("", detail)
    pointer = path.rstrip("`").lstrip("$").replace("[", "/").replace("]", "").replace(".", "/")
    code = "invalid-base64" if "base64" in detail else "validation-failed"
    return Invalid(detail, code=code, errors=[FieldError(pointer, code, detail)])
