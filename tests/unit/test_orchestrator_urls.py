"""What stands in `orchestrator.url`, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.deploy.apply import first_count
from headrace.schemes import ORCHESTRATORS, UnknownScheme, build
from headrace.settings import load

WRONG = {
    "nomad://": "expected nomad://host:port/job",
    "nomad://h:4646": "expected nomad://host:port/job",
    "nomad://h/a/b": "expected nomad://host:port/job",
    "nomads:///job": "expected nomads://host:port/job",
    "nomad://h/job?ca=/x": "unknown option 'ca'; expected one of namespace,",
    "nomad://h/job?secret=1": "unknown option 'secret'",
    "kubernetes://h/a/b": "expected kubernetes://host:port/namespace",
    "kubernetes://h/ns?replicas=3": "unknown option 'replicas'",
    "kubernetes:///ns": "no KUBERNETES_SERVICE_HOST",
    "local://scale": "expected local:///path/of/socket",
    "local://": "expected local:///path/of/socket",
}


@pytest.mark.parametrize("url", WRONG)
def test_wrong_urls_say_what_was_expected(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ValueError, match=r"orchestrator\.url = ") as caught:
        build("orchestrator.url", ORCHESTRATORS, url)
    assert WRONG[url] in str(caught.value)
    assert "secret=1" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "at"),
    [
        ("nomad://h/job", "http://h:4646"),
        ("nomads://h:1/job", "https://h:1"),
        ("nomad://[::1]:5/job", "http://[::1]:5"),
        ("kubernetes://h/ns?tls=0", "http://h:443"),
        ("kubernetes://[::1]:6443/ns?tls=0", "http://[::1]:6443"),
        ("kubernetes://h:8001?tls=0", "http://h:8001"),
    ],
)
async def test_where_is_asked(url: str, at: str) -> None:
    made = build("orchestrator.url", ORCHESTRATORS, url)
    assert str(made._web._client.base_url).rstrip("/") in (at, at.removesuffix(":443"), f"{at}/")
    await made.close()


def test_files_that_are_not_there() -> None:
    with pytest.raises(OSError, match="No such file"):
        build("orchestrator.url", ORCHESTRATORS, "nomads://h/job?ca=/nowhere")


def test_an_unknown_scheme() -> None:
    with pytest.raises(
        UnknownScheme, match="expected local://, nomad://, nomads://, kubernetes://"
    ):
        build("orchestrator.url", ORCHESTRATORS, "docker://h")


@pytest.mark.parametrize(
    ("mode", "workers", "count"),
    [("act", 1, 2), ("act", 3, 3), ("act", 9, 4), ("advise", 9, 9), ("off", 1, 1)],
)
def test_with_how_many_a_house_opens(tmp_path: Path, mode: str, workers: int, count: int) -> None:
    (tmp_path / "headrace.toml").write_text(
        f"""
        [autoscale]
        mode = "{mode}"
        [models.m]
        class = "a:B"
        workers = {workers}
        [models.m.scale]
        least = 2
        most = 4
        [models.free]
        class = "a:B"
        workers = 7
        """
    )
    settings = load(tmp_path / "headrace.toml", environment={})
    assert first_count(settings, "m") == count
    assert first_count(settings, "free") == 7
