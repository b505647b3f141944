"""JSON lines on stderr, one an event, with the request id where there is one; never a payload."""

from __future__ import annotations

import logging
import sys

import structlog


def set_up(role: str, *, level: str = "info", plain: bool = False) -> None:
    """Once, at the start of a process. `plain`: for a person at a terminal."""
    render = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if plain
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        # One write a line: a house's processes share a stderr, and half lines would be glued.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role)
