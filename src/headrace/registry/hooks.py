"""Webhooks that a registry sends: forged ones are told, stale ones, and repetitions.

    headers, raw bytes -> signature -> age -> seen before? -> a hint

A hint says where to look, never what is so: MLflow gives up after four tries in eight seconds, and
what comes late may be old. Whoever hears it asks the registry, which they also do every few seconds
without any hint.

MLflow signs as Standard Webhooks does, with headers of its own and the secret's text as the key.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from headrace import signatures
from headrace.signatures import SignatureWrong

TOLERANCE_S = signatures.TOLERANCE_S
SEEN_S = 86_400.0
#: MLflow's headers -> those of Standard Webhooks
_HEADERS = {
    "x-mlflow-delivery-id": signatures.ID,
    "x-mlflow-timestamp": signatures.TIMESTAMP,
    "x-mlflow-signature": signatures.SIGNATURE,
}


class Hint(NamedTuple):
    """Of this model something may have changed; "": of any."""

    model: str


class Judged(NamedTuple):
    """What to answer. `code`: of the problem, where it is one; `hint`: None where there is nothing
    new in it."""

    status: int
    code: str = ""
    detail: str = ""
    hint: Hint | None = None


class _Payload(msgspec.Struct):
    data: dict[str, Any] = {}


class Seen:
    """The ids of a day. At most `most`: the oldest go first, and they are long stale by then."""

    def __init__(self, keep_s: float = SEEN_S, most: int = 100_000) -> None:
        self._keep_s, self._most = keep_s, most
        self._ids: OrderedDict[str, float] = OrderedDict()  # id -> when it came first

    def is_new(self, id: str, now: float) -> bool:
        """Once for each id."""
        while self._ids and (
            len(self._ids) > self._most or next(iter(self._ids.values())) < now - self._keep_s
        ):
            self._ids.popitem(last=False)
        if id in self._ids:
            return False
        self._ids[id] = now
        return True


class Hooks:
    """`secrets`: those that are valid, two while one is being rotated. Raises ValueError where one
    is none, or there is none: a door without a key takes nothing in."""

    def __init__(
        self,
        secrets: Sequence[str],
        seen: Seen | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not secrets:
            raise ValueError("webhooks of the registry need a secret")
        self._standard = [_standard(secret) for secret in secrets]
        self._mlflow = [mlflow_secret(secret) for secret in secrets]
        self._seen = seen or Seen()
        self._clock = clock

    def judge(self, headers: Mapping[str, str], body: bytes) -> Judged:
        """`body`: the raw bytes."""
        given = {name.lower(): value for name, value in headers.items()}
        theirs = {ours: given[name] for name, ours in _HEADERS.items() if name in given}
        keys = self._mlflow if theirs else self._standard
        now = self._clock()
        try:
            # Whoever cannot sign is not told how old it is.
            name = signatures.verify(keys, theirs or given, body, now=now, tolerance_s=float("inf"))
        except SignatureWrong as error:
            return Judged(401, code="signature-wrong", detail=str(error))
        if abs(now - int((theirs or given)[signatures.TIMESTAMP])) > TOLERANCE_S:
            said = f"sent more than {TOLERANCE_S} s ago, or the clocks differ"
            return Judged(400, code="stale", detail=said)
        if not self._seen.is_new(name, now):
            return Judged(200)
        return Judged(200, hint=Hint(_model_of(body)))


def mlflow_secret(secret: str) -> str:
    """MLflow's key is the text itself: here it is as Standard Webhooks writes one. Raises
    ValueError."""
    key = signatures.PREFIX + b64encode(secret.encode()).decode()
    signatures.check_secret(key)
    return key


def _standard(secret: str) -> str:
    if not secret.startswith(signatures.PREFIX):
        return mlflow_secret(secret)
    signatures.check_secret(secret)
    return secret


def _model_of(body: bytes) -> str:
    """ "" where it does not say: a signed body that cannot be read is a reason to look around."""
    try:
        data = msgspec.json.decode(body, type=_Payload).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    name = data.get("name", data.get("model", ""))
    return name if isinstance(name, str) and len(name) <= 256 else ""
