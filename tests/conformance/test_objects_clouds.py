"""`gs://` and `az://` against a fake of ours: the requests are those of their protocols, and the
exam passes. Neither was run against the real ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.objects.cloud import CloudObjects
from headrace.objects.port import ObjectsDown
from headrace.testing.objects_exam import QUESTIONS, Exam

from .fake_cloud import FakeCloud

KEY = "U0VDUkVULUtFWQ=="
QUERIES = {"gs": "bearer_token=SECRET-KEY", "az": f"account_name=acme&account_key={KEY}"}


@pytest.fixture
def cloud() -> Iterator[FakeCloud]:
    with FakeCloud() as fake:
        yield fake


def url_of(scheme: str, cloud: FakeCloud) -> str:
    return f"{scheme}://bucket/some/where?endpoint={cloud.url}&{QUERIES[scheme]}"


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("scheme", QUERIES)
async def test_exam(scheme: str, question: str, cloud: FakeCloud) -> None:
    await getattr(Exam(lambda: CloudObjects(url_of(scheme, cloud))), question)()
    assert all(name.startswith("bucket/some/where/") for name in cloud.objects)


@pytest.mark.parametrize(
    ("scheme", "shown"), [("gs", "Bearer SECRET-KEY"), ("az", "SharedKey acme:")]
)
async def test_requests_are_signed(scheme: str, shown: str, cloud: FakeCloud) -> None:
    await CloudObjects(url_of(scheme, cloud)).put("a", b"x")
    assert cloud.seen[0].startswith(shown)


async def test_a_service_account_comes_from_a_file(cloud: FakeCloud, tmp_path: Path) -> None:
    account = {
        "gcs_base_url": cloud.url,
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    (tmp_path / "account.json").write_text(json.dumps(account))
    objects = CloudObjects(
        f"gs://bucket?endpoint={cloud.url}&service_account={tmp_path}/account.json"
    )
    await objects.put("a", b"x")
    assert cloud.objects == {"bucket/a": b"x"}


@pytest.mark.parametrize("scheme", ["s3", *QUERIES])
async def test_plain_http_is_for_the_loopback_alone(scheme: str) -> None:
    query = QUERIES.get(scheme, "region=x&access_key_id=a&secret_access_key=b")
    for leave in ("", "&allow_http=true"):
        # An address for documentation: nobody is there, with leave the connection is tried in vain.
        url = f"{scheme}://b?endpoint=http://192.0.2.1:9&{query}{leave}"
        objects = CloudObjects(url, connect_s=0.2, limit_s=0.4, retries=0)
        with pytest.raises(ObjectsDown) as raised:
            await objects.get("a")
        assert ("builder error" in str(raised.value)) is (not leave)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://?endpoint=x", "expected s3://NAME"),
        ("s3://key:SECRET@bucket", "expected s3://NAME"),
        ("s3://bucket?secret=SECRET", "unknown 'secret'; expected endpoint, region"),
        ("az://c?region=x", "unknown 'region'"),
    ],
)
def test_what_is_wrong_in_a_url_is_told_without_its_secrets(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as raised:
        CloudObjects(url)
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize("scheme", QUERIES)
async def test_secrets_are_not_shown(scheme: str, cloud: FakeCloud) -> None:
    objects = CloudObjects(url_of(scheme, cloud))
    assert repr(objects) == f"<objects {scheme}://bucket/some/where>"
    cloud.act = lambda *_: (403, "text/plain", b"no")  # type: ignore[method-assign]
    for act in (objects.put("a", b"x"), objects.get("a"), objects.delete("a"), objects.names()):
        with pytest.raises(ObjectsDown) as raised:
            await act
        assert "SECRET" not in repr(raised.value) and KEY not in repr(raised.value)
        assert raised.value.__cause__ is None


async def test_a_shared_access_signature_in_the_query_of_requests_is_not_shown(
    cloud: FakeCloud,
) -> None:
    objects = CloudObjects(
        f"az://c?endpoint={cloud.url}&account_name=acme&sas_key=sv%3D1%26sig%3DSECRET"
    )
    cloud.act = lambda *_: (500, "text/plain", b"no")  # type: ignore[method-assign]
    with pytest.raises(ObjectsDown) as raised:
        await objects.get("a")
    assert "SECRET" not in repr(raised.value)
