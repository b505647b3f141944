"""Prefer, Idempotency-Key, Headrace-Priority: read as their standards say, or refused."""

from types import SimpleNamespace

import pytest

from headrace.errors import BadRequest
from headrace.gateway.prefer import read_key, read_prefer, read_priority
from headrace.gateway.tenant import Tenants
from headrace.records import Priority


def request(**headers):
    return SimpleNamespace(
        headers={
            name.replace("_", "-").encode(): value if isinstance(value, bytes) else value.encode()
            for name, value in headers.items()
        }
    )


PREFERS = {
    "": (False, None),
    "respond-async": (True, None),
    "Respond-Async, WAIT=10": (True, 10),
    "wait=5": (False, 5),
    "wait = 5 , respond-async": (True, 5),
    'wait="7"': (False, 7),
    "wait=0": (False, 0),
    "wait=999999": (False, 60),
    "respond-async; wait=3": (True, None),  # a parameter of another preference
    "nowait=10": (False, None),
    "await=10": (False, None),
    "wait=-1": (False, None),
    "wait=1e3": (False, None),
    "wait=": (False, None),
    "wait=9999999999999999999999": (False, None),
    "wait=5s": (False, None),
    'x="wait=5"': (False, None),
    "not-respond-async": (False, None),
    "respond-async-not": (False, None),
    "return=minimal, handling=lenient": (False, None),
    ",,;;==": (False, None),
}


@pytest.mark.parametrize(("value", "want"), PREFERS.items(), ids=PREFERS.keys())
def test_prefer(value, want):
    assert read_prefer(request(prefer=value)) == want


def test_no_prefer():
    assert read_prefer(request()) == (False, None)
    assert read_prefer(request(prefer=b"\xff\xfe wait=1")) == (False, None)


@pytest.mark.parametrize("key", ["a", "k" * 255, "8e03978e-40d5-43dd-bc93-6894a57f9324", '"', "!~"])
def test_keys(key):
    assert read_key(request(idempotency_key=key)) == key
    if key != '"':
        assert read_key(request(idempotency_key=f'"{key}"')) == key, "a structured string"


def test_no_key():
    assert read_key(request()) == ""


@pytest.mark.parametrize(
    "key", ["", " ", '""', "a b", "k" * 256, "a\tb", b"caf\xe9", "a, b", b"\x7f", b"a\0b"]
)
def test_what_is_no_key(key):
    with pytest.raises(BadRequest) as refusal:
        read_key(request(idempotency_key=key))
    assert refusal.value.code == "idempotency-key-invalid"


def test_priorities():
    assert read_priority(request()) is Priority.INTERACTIVE
    assert read_priority(request(headrace_priority="BULK")) is Priority.BULK
    for bad in ("", "0", "bulk, interactive", "high"):
        with pytest.raises(BadRequest):
            read_priority(request(headrace_priority=bad))


def test_tenants():
    assert Tenants("").of(request(x_tenant="acme")) == "default", "nobody is believed unasked"
    tenants = Tenants("X-Tenant")
    assert tenants.of(request(x_tenant="acme.eu-1_x")) == "acme.eu-1_x"
    for bad in ("", "a, b", "-a", "a/b", "a\0", "x" * 129, b"\xc3\xa9", "../other"):
        with pytest.raises(BadRequest):
            tenants.of(request(x_tenant=bad))
    with pytest.raises(BadRequest):
        tenants.of(request())
