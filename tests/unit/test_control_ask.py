"""What may be asked of a count, and what is said to it."""

import tomllib

import pytest

from headrace.control.ask import DEFAULT_S, MOST_S, Hand, expires, warnings
from headrace.control.people import Forbidden, Who
from headrace.control.tokens import digest, new_token
from headrace.errors import Invalid
from headrace.policy import Policy

NOW = 1e9
POLICY = Policy(least=2, most=10)


def hand(kind="set", count=5, **more):
    return Hand(kind=kind, count=count, reason="x", **more)


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, NOW + DEFAULT_S),
        ({"for_s": 60.0}, NOW + 60),
        ({"until": NOW + 1}, NOW + 1),
        ({"until": NOW + MOST_S}, NOW + MOST_S),
    ],
)
def test_it_ends_when_it_says(more, wanted):
    assert expires(hand(**more), NOW) == wanted


@pytest.mark.parametrize(
    "more",
    [
        {"until": NOW},
        {"until": NOW + MOST_S + 1},
        {"until": float("nan")},
        {"until": float("inf")},
        {"until": NOW + 1, "for_s": 1.0},
    ],
)
def test_every_override_ends(more):
    with pytest.raises(Invalid):
        expires(hand(**more), NOW)


@pytest.mark.parametrize(
    ("asked", "mode", "others", "wanted"),
    [
        (hand(), "act", [], []),
        (hand(count=2), "act", [("set", 9)], []),
        (hand("floor", 10), "act", [("cap", 10)], []),
        (hand(), "shadow", [], ["autoscale.mode is shadow"]),
        (hand(count=11), "act", [], ["above the policy's most, 10"]),
        (hand("floor", 11), "act", [], ["above the policy's most, 10"]),
        (hand("cap", 11), "act", [], []),
        (hand(count=1), "act", [], ["below the policy's least, 2"]),
        (hand("cap", 1), "act", [], ["below the policy's least, 2"]),
        (hand("floor", 0), "act", [], []),
        (hand(count=0), "act", [], ["below the policy's least", "with 0 nothing is answered"]),
        (hand("floor", 6), "act", [("cap", 5)], ["the floor, 6, is above the cap, 5"]),
        (hand("cap", 4), "act", [("floor", 5)], ["the floor, 5, is above the cap, 4"]),
        (hand("cap", 4), "act", [("set", 5)], ["it is set to 5"]),
    ],
)
def test_what_should_be_known_is_said(asked, mode, others, wanted):
    told = warnings(asked, POLICY, mode, others)
    assert len(told) == len(wanted)
    assert all(text.startswith(start) for text, start in zip(told, wanted, strict=True))


@pytest.mark.parametrize(
    ("role", "may"), [("viewer", 1), ("operator", 2), ("admin", 3)]
)  # fmt: skip
def test_each_role_may_what_those_before_may(role, may):
    who = Who("ann", role, "tcp")
    for n, wanted in enumerate(("viewer", "operator", "admin"), 1):
        if n <= may:
            who.must(wanted)
        else:
            with pytest.raises(Forbidden, match=f"ann is {role}: this takes {wanted}"):
                who.must(wanted)


def test_tokens_are_long_and_each_another():
    made = {new_token() for _ in range(100)}
    assert len(made) == 100 and all(len(token) >= 47 for token in made)
    assert len(digest(b"x")) == 64 and digest(b"x") != digest(b"y")
    assert tomllib.loads(f'x = "{made.pop()}"')
