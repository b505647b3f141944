"""What a call asks, and the key under which its result is kept.

key = BLAKE2b-256 of tenant, model, version, form, input: each with its length before it
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

from headrace.jobs import Form


class Content(NamedTuple):
    """`body` is the input in canonical bytes. Tenants share nothing, whatever they send."""

    tenant: str
    model: str
    form: Form
    body: bytes

    def key(self, version: str) -> bytes:
        """`version` of the model that gives, or gave, the result."""
        parts = self.tenant.encode(), self.model.encode(), version.encode(), b"%d" % self.form
        head = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        head += len(self.body).to_bytes(8, "big")
        digest = blake2b(head, digest_size=32, person=b"headrace-result")
        digest.update(self.body)
        return digest.digest()
