"""Lists: what may be asked for, and where the next page begins."""

from types import SimpleNamespace

import pytest

from headrace.errors import BadRequest, Invalid
from headrace.httpapi.listing import LIMIT, MOST_LISTED, cut, read_listing

IDS = [f"{n:032x}" for n in range(5)]


def ask(query, *names):
    return read_listing(SimpleNamespace(query=query.encode()), "acme", *names)


def test_pages_lead_through_all_of_a_list():
    seen, query = [], "limit=2"
    while True:
        limit, before, _ = ask(query)
        rest = [each for each in IDS if each > before]
        page, cursor = cut(rest[: limit + 1], limit, "acme", str)
        seen.append(page)
        if cursor is None:
            break
        query = f"limit=2&cursor={cursor}"
    assert seen == [IDS[:2], IDS[2:4], IDS[4:]]


def test_a_page_that_is_just_full_is_the_last():
    assert cut(IDS, 5, "acme", str) == (IDS, None)
    assert cut([], 5, "acme", str) == ([], None)


def test_what_is_asked_for():
    assert ask("") == (LIMIT, "", {})
    assert ask("limit=999999999&state=&model=a%20b", "state", "model") == (
        MOST_LISTED, "", {"state": "", "model": "a b"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("limit=0", "limit: expected 1 to 200"),
        ("limit=-1", "limit: expected 1 to 200"),
        ("limit=", "limit: expected 1 to 200"),
        ("limit=%C2%B2", "limit: expected 1 to 200"),
        ("limit=1234567890", "limit: expected 1 to 200"),
        ("limit=1&limit=1", "a parameter is given twice"),
        ("other=1", "other: expected limit, cursor or state"),
    ],
)
def test_what_is_refused(query, detail):
    with pytest.raises(Invalid, match=detail):
        ask(query, "state")


def test_a_cursor_is_not_guessed():
    with pytest.raises(BadRequest):
        ask("cursor=")
