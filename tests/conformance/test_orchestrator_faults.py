"""What the adapters say when an orchestrator is away, ill, busy, or somebody else's."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import Conflict, Invalid, NotFound, Refusal, Unavailable
from headrace.house import free_port
from headrace.orchestrator import kubernetes
from headrace.orchestrator.crew import Crew
from headrace.orchestrator.door import Door
from headrace.orchestrator.kubernetes import KubernetesOrchestrator
from headrace.orchestrator.local import LocalOrchestrator
from headrace.orchestrator.nomad import NomadOrchestrator
from headrace.orchestrator.port import Orchestrator, Status
from headrace.testing.fake_http import FakeHttp
from headrace.testing.fake_kubernetes import TOKEN, FakeKubernetes
from headrace.testing.fake_nomad import FakeNomad, Group

from .self_signed import self_signed

TIMEOUT_S = 1.0
PATIENT_S = 20.0


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return str(tmp_path / "token")


@pytest.fixture
def nomad() -> Iterator[FakeNomad]:
    with FakeNomad(groups=("square", "cube")) as fake:
        yield fake


@pytest.fixture
def cluster() -> Iterator[FakeKubernetes]:
    with FakeKubernetes() as fake:
        yield fake


@pytest.fixture
async def on_nomad(nomad: FakeNomad, token_file: str) -> AsyncIterator[NomadOrchestrator]:
    made = NomadOrchestrator(nomad.url(), token_file=token_file, timeout_s=PATIENT_S)
    yield made
    await made.close()


@pytest.fixture
async def on_cluster(
    cluster: FakeKubernetes, token_file: str
) -> AsyncIterator[KubernetesOrchestrator]:
    made = KubernetesOrchestrator(cluster.url(), token_file=token_file, timeout_s=PATIENT_S)
    yield made
    await made.close()


async def refused(verb: Any, kind: type[Refusal], code: str, words: str = "") -> Refusal:
    with pytest.raises(kind) as caught:
        await verb
    assert caught.value.code == code, caught.value
    assert words in caught.value.detail
    return caught.value


def calls(fake: FakeHttp, method: str) -> int:
    return sum(asked.method == method for asked in fake.seen)


# -- away, ill -------------------------------------------------------------------------------------


@pytest.fixture(params=["nomad", "cluster"])
def fake(request: pytest.FixtureRequest) -> FakeNomad | FakeKubernetes:
    found: FakeNomad | FakeKubernetes = request.getfixturevalue(request.param)
    return found


def adapter(
    fake: FakeNomad | FakeKubernetes, token_file: str, timeout_s: float = PATIENT_S
) -> tuple[Orchestrator, str]:
    """And by which verb it changes a count."""
    if isinstance(fake, FakeNomad):
        return NomadOrchestrator(fake.url(), token_file=token_file, timeout_s=timeout_s), "POST"
    made = KubernetesOrchestrator(fake.url(), token_file=token_file, timeout_s=timeout_s)
    return made, "PATCH"


@pytest.mark.parametrize("fault", ["500", "502", "429", "cut", "garbage", "302"])
async def test_ill(fake: FakeNomad | FakeKubernetes, fault: str, token_file: str) -> None:
    made, changing = adapter(fake, token_file)
    await made.scale("square", 2, "before")
    fake.fail(fault)
    await refused(made.status("square"), Unavailable, "orchestrator-unavailable")
    if fault != "garbage":  # of what is done only the status is read
        fake.fail(fault, changing)
        await refused(made.scale("square", 3, "x"), Unavailable, "orchestrator-unavailable")
    assert (await made.status("square")).desired == 2
    await made.close()


@pytest.mark.parametrize("fault", ["hang", "late"])
async def test_it_hangs(fake: FakeNomad | FakeKubernetes, fault: str, token_file: str) -> None:
    """In time, and asked once: whether it was done, only a look tells."""
    patient, changing = adapter(fake, token_file)
    hasty, _ = adapter(fake, token_file, TIMEOUT_S if fault == "hang" else PATIENT_S)
    fake.fail(fault, changing)
    began = time.monotonic()
    await refused(hasty.scale("square", 3, "x"), Unavailable, "orchestrator-unavailable")
    assert time.monotonic() - began < TIMEOUT_S + 10
    assert calls(fake, changing) == 1
    assert (await patient.status("square")).desired == (3 if fault == "late" else 1)
    await hasty.close()
    await patient.close()


async def test_nobody_there(tmp_path: Path) -> None:
    nowhere = [
        NomadOrchestrator(f"nomad://127.0.0.1:{free_port()}/house"),
        KubernetesOrchestrator(f"kubernetes://127.0.0.1:{free_port()}/ns?tls=0"),
        LocalOrchestrator(f"local://{tmp_path}/nobody"),
    ]
    for made in nowhere:
        await made.open()
        for verb in (
            made.status("m"), made.scale("m", 1, "x"), made.note("m", "x"),
            made.create("m@3", 1, "x"), made.remove("m", "x"),
        ):  # fmt: skip
            await refused(verb, Unavailable, "orchestrator-unavailable")
        await made.close()


async def test_a_black_hole() -> None:
    """It takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as hole:
        made = NomadOrchestrator(
            f"nomad://127.0.0.1:{hole.getsockname()[1]}/house", timeout_s=TIMEOUT_S
        )
        await refused(
            made.status("m"), Unavailable, "orchestrator-unavailable", "did not answer within 1 s"
        )
        await made.close()


# -- tokens ----------------------------------------------------------------------------------------


async def test_a_token_that_may_not(nomad: FakeNomad, cluster: FakeKubernetes) -> None:
    for made in (NomadOrchestrator(nomad.url()), KubernetesOrchestrator(cluster.url())):
        await refused(made.status("square"), Unavailable, "orchestrator-forbidden")
        await refused(made.scale("square", 2, "x"), Unavailable, "orchestrator-forbidden")
        await refused(made.create("square@3", 2, "x"), Unavailable, "orchestrator-forbidden")
        await refused(made.remove("square@3", "x"), Unavailable, "orchestrator-forbidden")
        await made.close()


async def test_a_new_token_is_read(
    cluster: FakeKubernetes, on_cluster: KubernetesOrchestrator, token_file: str
) -> None:
    await on_cluster.status("square")
    cluster.token = "another"
    no = await refused(on_cluster.status("square"), Unavailable, "orchestrator-forbidden")
    assert TOKEN not in no.detail
    Path(token_file).write_text("another")
    await on_cluster.status("square")
    Path(token_file).unlink()
    await refused(
        on_cluster.status("square"), Unavailable, "orchestrator-forbidden", "No such file"
    )


# -- Nomad -----------------------------------------------------------------------------------------


async def test_nomad_is_told_why(nomad: FakeNomad, on_nomad: NomadOrchestrator) -> None:
    await on_nomad.scale("square", 3, "raised from 1 to 3: the shops open")
    await on_nomad.note("square", "forecast: 2 would do")
    note, event = nomad.groups["square"].events
    assert event["Message"] == "raised from 1 to 3: the shops open" and event["Count"] == 3
    assert note["Message"] == "forecast: 2 would do" and note["Count"] is None
    assert event["Meta"] == note["Meta"] == {"by": "headrace"}


async def test_nomad_in_a_namespace(nomad: FakeNomad, token_file: str) -> None:
    url = f"{nomad.url()}?namespace=vision&region=eu&policy_override=1"
    made = NomadOrchestrator(url, token_file=token_file)
    await made.status("square")
    await made.scale("square", 2, "x")
    assert all(a.query == {"namespace": "vision", "region": "eu"} for a in nomad.seen)
    assert nomad.seen[-1].body["PolicyOverride"] is True
    await made.close()


async def test_nomad_while_a_version_is_rolled_out(
    nomad: FakeNomad, on_nomad: NomadOrchestrator
) -> None:
    nomad.deploys = True
    await on_nomad.scale("square", 3, "x")
    status = await on_nomad.status("square")
    assert status.moving and (status.desired, status.running) == (3, 1)
    await refused(on_nomad.scale("square", 4, "x"), Conflict, "rollout-under-way")
    await on_nomad.note("square", "4 were wanted")  # that may always be said
    nomad.settle()
    status = await on_nomad.status("square")
    assert not status.moving and (status.running, status.ready) == (3, 3)
    await on_nomad.scale("square", 4, "x")


@pytest.mark.parametrize("knows", [True, False])
async def test_nomad_somebody_submits_the_job(
    nomad: FakeNomad, on_nomad: NomadOrchestrator, knows: bool
) -> None:
    """Also where the server does not know the index in a scaling request."""
    nomad.knows_index = knows
    seen = await on_nomad.status("square")
    await on_nomad.note("square", "events do not count")
    nomad.settle()  # nor does what becomes of the job's state
    await on_nomad.scale("square", 2, "x", seen)
    seen = await on_nomad.status("square")
    nomad.meddle()
    await refused(on_nomad.scale("square", 3, "x", seen), Conflict, "workload-changed")


async def test_nomad_between_look_and_change(
    nomad: FakeNomad, on_nomad: NomadOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own refusal is understood."""
    seen = await on_nomad.status("square")

    async def stale(place: object) -> int:
        nomad.meddle()
        return int(seen.token)

    monkeypatch.setattr(on_nomad, "_index", stale)
    await refused(on_nomad.scale("square", 3, "x", seen), Conflict, "workload-changed")


async def test_nomad_bounds_of_the_group(nomad: FakeNomad, on_nomad: NomadOrchestrator) -> None:
    nomad.groups["cube"] = Group(2, least=2, most=4, started=2)
    for count in (1, 5):
        await refused(on_nomad.scale("cube", count, "x"), Invalid, "count-out-of-bounds", "scaling")
    assert (await on_nomad.status("cube")).desired == 2


async def test_nomad_no_such_job_or_stopped(
    nomad: FakeNomad, on_nomad: NomadOrchestrator, token_file: str
) -> None:
    other = NomadOrchestrator(nomad.url("nobody"), token_file=token_file)
    await refused(other.status("square"), NotFound, "workload-unknown", "'nobody'")
    await refused(other.scale("square", 1, "x"), NotFound, "workload-unknown")
    await other.close()
    nomad.house.stopped = True
    for verb in (on_nomad.status("square"), on_nomad.scale("square", 2, "x")):
        await refused(verb, NotFound, "workload-unknown", "stopped")
    assert nomad.groups["square"].count == 1


async def test_nomad_a_version_is_a_job(nomad: FakeNomad, on_nomad: NomadOrchestrator) -> None:
    nomad.groups["square"].least = 1
    await on_nomad.create("square@3", 1, "x")
    await on_nomad.scale("square@3", 2, "more")
    assert nomad.house.index == 10, "the job of the house is not touched"
    job = nomad.jobs["house-square-3"]
    assert job.submitted["Meta"] == {"team": "wines", "headrace_copy_of": "house"}
    assert [group.count for group in job.groups.values()] == [2]
    await on_nomad.remove("square@3", "x")
    assert job.stopped and nomad.groups["square"].count == 1
    await refused(on_nomad.status("square@3"), NotFound, "workload-unknown", "stopped")


async def test_nomad_only_ours_is_stopped(nomad: FakeNomad, on_nomad: NomadOrchestrator) -> None:
    await on_nomad.create("square@3", 2, "x")
    job = nomad.jobs["house-square-3"]
    job.submitted["Meta"] = None
    await on_nomad.remove("square@3", "x")
    assert not job.stopped and job.groups["square"].count == 0
    job.stopped = True
    await on_nomad.remove("square@3", "x")
    await refused(on_nomad.create("square@3", 1, "x"), Invalid, "workload-not-copied", "not ours")


async def test_nomad_somebody_makes_it_meanwhile(
    nomad: FakeNomad, on_nomad: NomadOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await on_nomad.create("square@3", 1, "x")

    async def nothing(place: object) -> None:
        return None

    monkeypatch.setattr(on_nomad, "_job_of", nothing)
    await refused(on_nomad.create("square@3", 2, "x"), Conflict, "workload-changed")
    monkeypatch.undo()
    await on_nomad.remove("square@3", "x")
    nomad.house.stopped = True
    await refused(on_nomad.create("square@3", 1, "x"), NotFound, "workload-unknown", "stopped")
    nomad.house.stopped = False
    nomad.fail("400", "POST")
    await refused(on_nomad.create("square@3", 1, "x"), Invalid, "workload-not-copied", "400")


# -- Kubernetes ------------------------------------------------------------------------------------


async def test_a_status_that_moves_is_no_conflict(
    cluster: FakeKubernetes, on_cluster: KubernetesOrchestrator
) -> None:
    """A deployment's version changes with each of its pods; only its spec is what was seen."""
    seen = await on_cluster.status("square")
    cluster.version += 1
    cluster.restless = 2
    await on_cluster.scale("square", 2, "x", seen)
    assert (await on_cluster.status("square")).desired == 2
    assert calls(cluster, "PATCH") == 4


async def test_a_status_that_never_rests(
    cluster: FakeKubernetes, on_cluster: KubernetesOrchestrator
) -> None:
    seen = await on_cluster.status("square")
    cluster.version += 1
    cluster.restless = 100
    await refused(on_cluster.scale("square", 2, "x", seen), Conflict, "workload-changed")
    assert calls(cluster, "PATCH") == kubernetes.TRIES


async def test_a_new_deployment_of_the_name_is_another(
    cluster: FakeKubernetes, on_cluster: KubernetesOrchestrator
) -> None:
    status = await on_cluster.status("square")
    old = Status(1, 1, 1, False, status.token.replace("u-square", "u-before"))
    cluster.version += 1
    await refused(on_cluster.scale("square", 2, "x", old), Conflict, "workload-changed")


async def test_pods_that_start_and_versions_that_go(
    cluster: FakeKubernetes, on_cluster: KubernetesOrchestrator
) -> None:
    cluster.hurries = False
    one = cluster.deployments["square"]
    await on_cluster.scale("square", 3, "x")
    assert (await on_cluster.status("square")).moving, "nobody has looked at it yet"
    one.observed, one.pods = one.generation, 3
    status = await on_cluster.status("square")
    assert (status.desired, status.running, status.ready, status.moving) == (3, 3, 1, False)
    one.old = 2
    assert (await on_cluster.status("square")).moving
    cluster.settle()
    status = await on_cluster.status("square")
    assert (status.ready, status.moving) == (3, False)
    await on_cluster.scale("square", 0, "x")
    cluster.settle()
    status = await on_cluster.status("square")
    assert (status.desired, status.running, status.ready, status.moving) == (0, 0, 0, False)


async def test_two_autoscalers_do_not_fight(
    cluster: FakeKubernetes, on_cluster: KubernetesOrchestrator
) -> None:
    cluster.scalers = {"hpa": "square", "other": "cube"}
    for _ in range(2):
        await refused(
            on_cluster.scale("square", 2, "x"), Conflict, "workload-scaled-by-another", "'hpa'"
        )
    assert calls(cluster, "PATCH") == 0
    cluster.scalers = {}
    await on_cluster.scale("square", 2, "x")
    before = len(cluster.seen)
    await on_cluster.scale("square", 3, "x")
    assert len(cluster.seen) == before + 1, "looked for once"


async def test_we_may_not_see_who_scales(
    cluster: FakeKubernetes, on_cluster: KubernetesOrchestrator
) -> None:
    cluster.scalers = None
    await on_cluster.scale("square", 2, "x")
    assert cluster.deployments["square"].replicas == 2


async def test_names_of_deployments(token_file: str) -> None:
    with FakeKubernetes(deployments=("hr-face-match-3",)) as cluster:
        url = f"{cluster.url()}&prefix=hr-"
        made = KubernetesOrchestrator(url, token_file=token_file)
        await made.scale("face_match@3", 2, "x")
        assert cluster.deployments["hr-face-match-3"].replicas == 2
        await refused(made.status("face"), NotFound, "workload-unknown", "'hr-face'")
        await made.close()


async def test_a_version_on_a_cluster(
    cluster: FakeKubernetes, on_cluster: KubernetesOrchestrator
) -> None:
    await on_cluster.create("square@3", 2, "x")
    one, theirs = cluster.deployments["square-3"], cluster.deployments["square"]
    assert one.meta["labels"]["app.kubernetes.io/managed-by"] == "headrace"
    assert "app.kubernetes.io/instance" not in one.meta["labels"], "whoever has it would remove it"
    pods, wanted = one.spec["template"]["metadata"], theirs.spec["selector"]["matchLabels"]
    assert not wanted.items() <= pods["labels"].items(), "its pods would be counted twice"
    assert pods["annotations"] == {"prometheus.io/scrape": "true"}
    await on_cluster.remove("square@3", "x")
    assert list(cluster.deployments) == ["square"]
    [asked] = [each for each in cluster.seen if each.method == "DELETE"]
    assert asked.body["propagationPolicy"] == "Background"
    assert asked.body["preconditions"] == {"uid": "u-1"}


async def test_only_ours_is_deleted(
    cluster: FakeKubernetes, on_cluster: KubernetesOrchestrator
) -> None:
    """A version's deployment that a person made is left to that person."""
    await on_cluster.create("square@3", 2, "x")
    cluster.deployments["square-3"].meta.pop("annotations")
    await on_cluster.create("square@3", 3, "it is there")
    assert cluster.deployments["square-3"].replicas == 3
    await on_cluster.remove("square@3", "x")
    assert cluster.deployments["square-3"].replicas == 0
    assert calls(cluster, "DELETE") == 0


async def test_one_of_another_workload_has_the_name(token_file: str) -> None:
    """Version 3 of `square`, and the model `square-3`."""
    with FakeKubernetes(deployments=("square", "square-3")) as cluster:
        made = KubernetesOrchestrator(cluster.url(), token_file=token_file, timeout_s=PATIENT_S)
        for verb in (made.status("square@3"), made.create("square@3", 2, "x")):
            await refused(verb, NotFound, "workload-unknown", "is not of square@3 but of square-3")
        await made.remove("square@3", "x")
        assert cluster.deployments["square-3"].replicas == 1
        assert (await made.status("square-3")).desired == 1
        await made.close()


async def test_what_cannot_be_copied(
    cluster: FakeKubernetes, on_cluster: KubernetesOrchestrator
) -> None:
    [container] = cluster.deployments["square"].spec["template"]["spec"]["containers"]
    container["args"] = ["worker"]
    await refused(
        on_cluster.create("square@3", 1, "x"), Invalid, "workload-not-copied", "--model square"
    )
    container["args"] = ["worker", "--model=square"]
    cluster.fail("422", "POST")
    await refused(on_cluster.create("square@3", 1, "x"), Invalid, "workload-not-copied", "422")
    assert list(cluster.deployments) == ["square"]


# -- TLS, and the pod's own cluster ----------------------------------------------------------------


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubernetes]:
    """What a pod finds: variables, a token, an authority, a namespace; and the API over TLS."""
    folder = tmp_path / "account"
    folder.mkdir()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(folder / "ca.crt"))
    (folder / "token").write_text(TOKEN)
    (folder / "namespace").write_text("models")
    monkeypatch.setattr(kubernetes, "ACCOUNT", folder)
    with FakeKubernetes(tls=context) as cluster:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(cluster.port))
        yield cluster


async def test_from_inside_the_cluster(pod: FakeKubernetes) -> None:
    made = KubernetesOrchestrator("kubernetes://")
    await made.scale("square", 2, "x")
    assert (await made.status("square")).running == 2
    await made.close()
    stranger = KubernetesOrchestrator(f"kubernetes://127.0.0.1:{pod.port}/models")
    await refused(stranger.status("square"), Unavailable, "orchestrator-unavailable", "certificate")
    await stranger.close()


async def test_nomad_over_tls(pod: FakeKubernetes) -> None:
    """What answers is no Nomad, but the handshake is done."""
    ca = kubernetes.ACCOUNT / "ca.crt"
    made = NomadOrchestrator(f"nomads://127.0.0.1:{pod.port}/house?ca={ca}")
    await refused(made.status("square"), Unavailable, "orchestrator-forbidden")
    await made.close()


# -- a house's door --------------------------------------------------------------------------------


class Nobody:
    """A process that is not there, and is never started."""

    process = None
    alive = False

    def __init__(self, name: str) -> None:
        self.name = name

    def start(self) -> None: ...


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[str]:
    door = Door(Crew(["square"], lambda model, number: Nobody(f"{model}-{number}"), 1.0))
    door.bind(str(tmp_path / "scale"))
    await door.open()
    yield str(tmp_path / "scale")
    await door.close()
    await asyncio.sleep(0)


async def said(path: str, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    ("request_line", "body", "status"),
    [
        ("GET /", b"", 404),
        ("GET /workloads/nobody", b"", 404),
        ("GET /workloads/square", b"", 200),
        ("PUT /workloads/square", b"", 405),
        ("POST /workloads/square", b"", 400),
        ("POST /workloads/square", b"{}", 400),
        ("POST /workloads/square", b'{"count":"3"}', 400),
        ("POST /workloads/square", b'{"count":1.5}', 400),
        ("POST /workloads/square", b'{"count":1,"more":1}', 400),
        ("POST /workloads/square", b'{"count":-1}', 422),
        ("POST /workloads/square", b'{"count":99999999999999999999}', 422),
        ("POST /workloads/square", b"[" * 5000, 400),
        ("POST /workloads/square", b"x" * 70_000, 413),
        ("POST /workloads/square/notes", b'{"text":""}', 200),
        ("POST /workloads/..%2f..%2fsquare", b'{"count":1}', 404),
    ],
)
async def test_the_door_reads_strictly(
    door: str, request_line: str, body: bytes, status: int
) -> None:
    head = f"{request_line} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = await said(door, head.encode() + body)
    assert answer.split(b" ", 2)[1] == str(status).encode(), answer


async def test_only_this_user_may_knock(door: str) -> None:
    assert Path(door).stat().st_mode & 0o777 == 0o600


async def test_a_path_too_long_is_an_oserror(tmp_path: Path) -> None:
    door = Door(Crew([], lambda *_: Nobody("x"), 1.0))
    with pytest.raises(OSError, match="too long"):
        door.bind(str(tmp_path / ("x" * 120)))
