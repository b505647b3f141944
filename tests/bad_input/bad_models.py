"""The models of the house that is fed with bad input: one for each kind of input."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

import headrace


class Person(msgspec.Struct):
    name: Annotated[str, Meta(min_length=1, max_length=40)]
    age: Annotated[int, Meta(ge=0, le=150)]
    nick: str | None = None
    rows: list[list[int]] = []
    photo: bytes = b""


class Persons(headrace.Model):
    """A struct with limits."""

    name = "person"
    batching = headrace.Batching(max_size=32)

    def predict(self, people: list[Person]) -> list[str]:
        return [f"{each.age}" for each in people]


class Numbers(headrace.Model):
    """The sum; a row that begins with -1000 takes as many milliseconds as it has next."""

    name = "numbers"
    batching = headrace.Batching(max_size=32)

    def predict(self, rows: list[list[float]]) -> list[float]:
        for row in rows:
            if len(row) > 1 and row[0] == -1000:
                time.sleep(row[1] / 1000)
        return [float(sum(row)) for row in rows]


class Matrix(headrace.Model):
    name = "matrix"

    def predict(
        self, arrays: list[Annotated[np.ndarray, headrace.Tensor("float32", (2, 3))]]
    ) -> list[float]:
        return [float(each.sum()) for each in arrays]


class Seen(msgspec.Struct):
    face: str
    height: int
    width: int
    corner: list[int]


class Photo(headrace.Model):
    """Says what it sees: the size, the pixel at the top left, and that there is no face."""

    name = "photo"

    def predict(self, images: list[headrace.Image]) -> list[Seen]:
        arrays = [image.array() for image in images]
        return [Seen("no_face", a.shape[0], a.shape[1], a[0, 0].tolist()) for a in arrays]


class Two(msgspec.Struct):
    first: headrace.Image
    second: headrace.Image
    threshold: float = 0.5


class Pair(headrace.Model):
    name = "pair"

    def predict(self, pairs: list[Two]) -> list[bool]:
        return [bool(np.array_equal(p.first.array(), p.second.array())) for p in pairs]


class Free(headrace.Model):
    name = "free"

    def predict(self, values: list[dict[str, Any]]) -> list[int]:
        return [len(each) for each in values]


class Cat(msgspec.Struct, tag=True):
    lives: int
    picture: bytes = b""


class Dog(msgspec.Struct, tag=True):
    tricks: list[str]


class Pet(headrace.Model):
    name = "pet"

    def predict(self, pets: list[Cat | Dog | None]) -> list[str]:
        return [type(each).__name__ for each in pets]
