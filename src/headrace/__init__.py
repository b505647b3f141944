"""Headrace takes a machine-learning model from a training script to a production API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.images import Image
from headrace.model import Batching, ItemError, Model
from headrace.tensors import Tensor

if TYPE_CHECKING:
    from headrace.client import AsyncClient, Client

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Batching", "Client", "Image", "ItemError", "Model", "Tensor"]


def __getattr__(name: str) -> Any:
    # The client brings httpx, which a model process has no use for.
    if name in ("Client", "AsyncClient"):
        from headrace import client

        return getattr(client, name)
    raise AttributeError(f"module 'headrace' has no attribute {name!r}")
