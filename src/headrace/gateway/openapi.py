"""The cards of the models -> an OpenAPI 3.1 document."""

from __future__ import annotations

from typing import Any

from headrace.signature import Card


def openapi(cards: list[Card]) -> dict[str, Any]:
    return {"openapi": "3.1.0", "info": {"title": "Headrace", "version": "1"}, "paths": {}}
