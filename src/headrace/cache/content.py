"""What a call asks, and the key under which its result is kept.

key = BLAKE2b-256 of tenant, workload, version, form, input: each with its length before it
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

from headrace.deployments import parted
from headrace.jobs import Form


class Content(NamedTuple):
    """`body` is the input in canonical bytes. Tenants share nothing, whatever they send; nor do
    versions that are served side by side, whatever they call themselves: `workload` is which of
    them gets the call."""

    tenant: str
    workload: str
    form: Form
    body: bytes

    @property
    def model(self) -> str:
        return parted(self.workload)[0]

    def key(self, version: str) -> bytes:
        """`version` that gives, or gave, the result."""
        parts = self.tenant.encode(), self.workload.encode(), version.encode(), b"%d" % self.form
        head = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        head += len(self.body).to_bytes(8, "big")
        digest = blake2b(head, digest_size=32, person=b"headrace-result")
        digest.update(self.body)
        return digest.digest()
