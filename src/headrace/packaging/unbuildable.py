"""Why there is no image."""

from __future__ import annotations


class Unbuildable(ValueError):
    """Something is missing or does not fit: the message says what, and what helps."""
