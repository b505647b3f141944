"""The model of most journeys: its answers can be told from all others."""

from __future__ import annotations

MODELS = """
    import time
    import headrace

    class Square(headrace.Model):
        batching = headrace.Batching(max_size={max_size})

        def golden(self):
            return 3, 10

        def predict(self, items: list[int]) -> list[int]:
            time.sleep({batch_s})
            return [n * n + 1 for n in items]
"""


def square(batch_s: float, max_size: int = 8) -> str:
    """Its module; more classes may follow. A batch takes `batch_s`, of whatever size."""
    return MODELS.format(batch_s=batch_s, max_size=max_size)


def right(n: int, result: int) -> bool:
    return result == n * n + 1
