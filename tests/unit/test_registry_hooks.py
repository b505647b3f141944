"""Webhooks of the registry: shuffled, replayed, forged, stale, lost (faults.md F19)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random

import pytest

from headrace.registry.hooks import Hint, Hooks, Judged, Seen
from headrace.signatures import new_secret, sign

NOW = 1_700_000_000
TEXT, STANDARD = "what MLflow was given", new_secret()


class Clock:
    now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hooks(clock: Clock) -> Hooks:
    return Hooks([TEXT, STANDARD], clock=clock)


def body(model: str = "iris", number: int = 3) -> bytes:
    data = {"name": model, "alias": "production", "version": str(number)}
    event = {"entity": "model_version_alias", "action": "created", "data": data}
    return json.dumps(event | {"timestamp": "2023-11-14T22:13:20+00:00"}).encode()


def mlflow(id: str = "d-1", at: int = NOW, said: bytes | None = None, secret: str = TEXT):
    """As MLflow signs: the key is the secret's text."""
    said = body() if said is None else said
    mac = hmac.digest(secret.encode(), f"{id}.{at}.".encode() + said, hashlib.sha256)
    return {
        "X-MLflow-Delivery-Id": id,
        "X-MLflow-Timestamp": str(at),
        "X-MLflow-Signature": f"v1,{base64.b64encode(mac).decode()}",
    }, said


def test_a_webhook_is_a_hint(hooks):
    assert hooks.judge(*mlflow()) == Judged(200, hint=Hint("iris"))
    headers, said = mlflow("d-2")
    lower = {name.lower(): value for name, value in headers.items()}
    assert hooks.judge(lower, said).hint == Hint("iris")


def test_standard_webhooks_are_taken_too(hooks):
    said = json.dumps({"type": "alias.moved", "data": {"model": "wine"}}).encode()
    assert hooks.judge(sign([STANDARD], "e-1", NOW, said), said).hint == Hint("wine")


@pytest.mark.parametrize("said", [b"", b"{", b"[]", b"\xff", b'{"data": 3}', b'{"data": {}}',
                                  b'{"data": {"name": 3}}', b"[" * 100_000,
                                  b'{"data": {"name": "%s"}}' % (b"x" * 300)])  # fmt: skip
def test_one_that_names_no_model_is_a_hint_of_any(said, hooks):
    assert hooks.judge(*mlflow(said=said)) == Judged(200, hint=Hint(""))


def test_forged_ones_are_401(hooks):
    headers, said = mlflow()
    forged = [
        mlflow(secret="what somebody guessed"),
        (headers, said + b" "),
        (headers, said.replace(b"3", b"4", 1)),
        (headers | {"X-MLflow-Delivery-Id": "d-2"}, said),
        (headers | {"X-MLflow-Timestamp": str(NOW + 1)}, said),
        (headers | {"X-MLflow-Signature": "v1,"}, said),
        (
            headers | {"X-MLflow-Signature": headers["X-MLflow-Signature"].replace("v1,", "v2,")},
            said,
        ),
        ({name: value for name, value in headers.items() if "Signature" not in name}, said),
        ({}, said),
        (sign([new_secret()], "e-1", NOW, said), said),
        # The text is a key for MLflow's headers alone, and a whsec_ for the others.
        (headers | {"X-MLflow-Timestamp": "9" * 400}, said),
    ]
    for one in forged:
        judged = hooks.judge(*one)
        assert (judged.status, judged.code, judged.hint) == (401, "signature-wrong", None), one
    assert hooks.judge(headers, said).hint, "a forged one may not use up the id of a true one"


def test_stale_ones_are_400_and_use_nothing_up(hooks, clock):
    for off_s in (-301, 301):
        judged = hooks.judge(*mlflow(at=NOW + off_s))
        assert (judged.status, judged.code, judged.hint) == (400, "stale", None)
    assert hooks.judge(*mlflow(at=NOW + 300)).hint
    clock.now += 1000
    assert hooks.judge(*mlflow(secret="forged and old")).status == 401


def test_a_repetition_is_taken_and_changes_nothing(hooks):
    assert hooks.judge(*mlflow()).hint
    for _ in range(100):
        assert hooks.judge(*mlflow()) == Judged(200)
    # MLflow signs each try anew; what counts is the id.
    assert hooks.judge(*mlflow(at=NOW + 4)) == Judged(200)


def test_ids_are_kept_for_a_day():
    seen = Seen()
    assert seen.is_new("a", NOW) and not seen.is_new("a", NOW + 86_399)
    assert seen.is_new("b", NOW + 86_401) and seen.is_new("a", NOW + 86_402)


def test_the_memory_of_ids_has_an_end():
    seen = Seen(most=100)
    assert all(seen.is_new(str(number), NOW) for number in range(1000))
    assert not seen.is_new("999", NOW)
    assert seen.is_new("0", NOW)


@pytest.mark.parametrize("secrets", [[], ["short"], [""], ["whsec_AAAA"], [TEXT, "short"]])
def test_without_a_secret_nothing_is_taken_in(secrets):
    with pytest.raises(ValueError, match="secret"):
        Hooks(secrets)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_comes_the_end_is_what_the_registry_says(seed, clock):
    """Fifty promotions whose webhooks come late, shuffled, a hundred times, or never: who looks at
    the registry at each hint, and once at the end, rolls out what it says, and nothing twice."""
    chance, hooks = random.Random(seed), Hooks([TEXT], clock=clock)
    registry: dict[str, int] = {}
    running: dict[str, int] = {}
    rollouts: list[tuple[str, int]] = []
    looks = 0

    def look(model: str) -> None:
        nonlocal looks
        looks += 1
        for name in [model] if model else list(registry):
            if name in registry and running.get(name) != registry[name]:
                running[name] = registry[name]
                rollouts.append((name, registry[name]))

    sent = []
    for number in range(1, 51):
        model = chance.choice(["iris", "wine"])
        registry[model] = number  # each has a digest of its own
        clock.now += chance.uniform(0, 5)
        sent.append(mlflow(f"d-{number}", int(clock.now), body(model, number)))
        if chance.random() < 0.5:
            headers, said = chance.choice(sent)
            for _ in range(100):
                judged = hooks.judge(headers, said)
                assert judged.status == 200
                if judged.hint:
                    look(judged.hint.model)
        assert hooks.judge({}, body("iris", 1)).status == 401
    chance.shuffle(sent)
    for headers, said in sent[::2]:
        if hint := hooks.judge(headers, said).hint:
            look(hint.model)
    look("")  # the poll: every hint may have been lost
    assert running == registry
    assert len(rollouts) == len(set(rollouts)) and looks <= len(sent) + 1
