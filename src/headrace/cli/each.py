"""The same for many jobs: one after the other, with a bar where there are enough to wait for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import typer

from headrace.cli.told import say_error, say_json

BAR_FROM = 20


def each(ids: list[str], act: Callable[[str], Any], done: str, json: bool) -> None:
    """Does it to all, whatever becomes of one; the status of the command says whether all went.

    `done`: what to say of one, as "cancelled". What was refused is said on stderr.
    """
    from headrace.client import CallRefused

    good: list[str] = []
    bad: dict[str, CallRefused] = {}
    for one in with_bar(ids, done):
        try:
            act(one)
        except CallRefused as refused:
            bad[one] = refused
        else:
            good.append(one)
    for one, refusal in bad.items():
        say_error(f"{one}: {refusal.code}: {refusal.detail}")
    if json:
        say_json({done: good, "refused": {one: refusal.code for one, refusal in bad.items()}})
    elif len(ids) <= BAR_FROM:
        for one in good:
            typer.echo(f"{one} {done}")
    else:
        typer.echo(f"{len(good)} {done}" + (f", {len(bad)} refused" if bad else ""))
    if bad:
        raise typer.Exit(1)


def with_bar(ids: list[str], doing: str) -> Iterable[str]:
    if len(ids) <= BAR_FROM or not sys.stderr.isatty():
        return ids
    from rich.console import Console
    from rich.progress import track

    return track(ids, description=doing, console=Console(stderr=True))
