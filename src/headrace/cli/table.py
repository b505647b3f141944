"""Tables as all commands print them, and what stands in their cells."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def table_of(*headings: str, right: Collection[str] = (), whole: Collection[str] = ()) -> Table:
    """Text that is too long goes on in the next line; not in the columns of `right`, which are
    numbers, and of `whole`."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(
            heading,
            justify="right" if heading in right else "left",
            no_wrap=heading in right or heading in whole,
            overflow="fold",
        )
    return table


def escaped(text: str) -> str:
    """As it is, also where it has [brackets]."""
    from rich.markup import escape

    return escape(text)


def moment(unix_s: float) -> str:
    """In this machine's time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))
