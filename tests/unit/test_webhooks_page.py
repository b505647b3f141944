"""The receiver that the page shows is right."""

import re
from pathlib import Path

import pytest

from headrace.clerk.deliver import PAUSES_S
from headrace.signatures import new_secret, sign

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
BODY = b'{"type": "job.succeeded"}'


@pytest.fixture
def verify():
    [shown] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(shown, names)
    return names["verify"]


def signed(*secrets):
    import time

    return sign(secrets, "evt_1", int(time.time()), BODY)


def test_it_takes_what_we_sign_also_while_a_secret_is_rotated(verify):
    old, new = new_secret(), new_secret()
    for secret in (old, new):
        assert verify(secret, signed(new, old), BODY)


def test_it_refuses_all_else(verify):
    secret = new_secret()
    assert not verify(new_secret(), signed(secret), BODY)
    assert not verify(secret, signed(secret), BODY + b" ")
    assert not verify(secret, signed(secret) | {"webhook-id": "evt_2"}, BODY)
    assert not verify(secret, signed(secret) | {"webhook-signature": "v1,AAAA"}, BODY)
    assert not verify(secret, sign([secret], "evt_1", 1_700_000_000, BODY), BODY)


def test_the_pauses_are_those_of_the_clerk():
    minutes_and_hours = [5, 5 * 60, 30 * 60, *(h * 3600 for h in (2, 5, 10, 14, 20, 24))]
    assert list(PAUSES_S) == minutes_and_hours
    assert "5 s, 5 and 30 minutes, 2, 5, 10, 14 and 20 hours" in PAGE
