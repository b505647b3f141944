"""B30, B33 to B38, B43, B46 for stored jobs: keys, tenants, cursors, deadlines, who leaves."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from under_test import HERE, ready
from wire import LIVE, MARK, Answer, HouseUnderTest, check_no_leak, check_problem, eventually

MODELS = """
    import time
    from pathlib import Path

    import headrace
    from bad_models import Numbers

    RUNS = Path(__file__).parent / "runs"


    class Slow(headrace.Model):
        \"\"\"Writes down each run; takes as many milliseconds as it is given.\"\"\"

        name = "slow"

        def predict(self, items: list[list[int]]) -> list[int]:
            for number, took_ms in items:
                with RUNS.open("a") as file:
                    file.write(f"{number}\\n")
                time.sleep(took_ms / 1000)
            return [number for number, _ in items]


    class Broken(headrace.Model):
        name = "broken"

        def predict(self, items: list[int]) -> list[int]:
            raise RuntimeError("SECRETMARK in what it raised")
"""
TOML = """
    [house]
    name = "bad-jobs"
    [gateway]
    listen = "127.0.0.1:{port}"
    tenant_header = "X-Tenant"
    drain_s = 2.0
    [jobs]
    max_attempts = 2
    backoff_s = 0.05
    [models.numbers]
    class = "models:Numbers"
    [models.slow]
    class = "models:Slow"
    [models.broken]
    class = "models:Broken"
"""
ACME, OTHER = {"X-Tenant": "acme"}, {"X-Tenant": "other"}
JSON = {"Content-Type": "application/json"}
NOBODYS = "0" * 32


@pytest.fixture(scope="module")
def jobs_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HouseUnderTest]:
    folder = tmp_path_factory.mktemp("jobs")
    shutil.copy(HERE / "bad_models.py", folder)
    (folder / "models.py").write_text(textwrap.dedent(MODELS))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = folder / "headrace.toml"
    settings.write_text(textwrap.dedent(TOML.format(port=port)))
    with (folder / "house.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "run_house.py"), str(settings)],
            stdout=output, stderr=output,
        )  # fmt: skip
        try:
            house = ready(process, port, folder / "house.log")
            eventually(lambda: submit(house, "numbers", [1]).status == 202, 30)
            yield house
        finally:
            process.terminate()
            process.wait(60)
    assert '"a request failed"' not in (folder / "house.log").read_text(), "an error of ours"


@pytest.fixture
def house(jobs_house: HouseUnderTest) -> Iterator[HouseUnderTest]:
    yield jobs_house
    assert jobs_house.is_well()


def submit(house: HouseUnderTest, model: str, value: object, **headers: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    body = json.dumps(value).encode()
    return house.request("POST", f"/models/{model}/jobs", body, ACME | JSON | named)


def predict(house: HouseUnderTest, model: str, value: object, **headers: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    body = json.dumps(value).encode()
    return house.request("POST", f"/models/{model}/predict", body, ACME | JSON | named)


def get(house: HouseUnderTest, path: str, tenant: dict[str, str] = ACME, **more: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in more.items()}
    return house.request("GET", path, None, tenant | named)


def ended(house: HouseUnderTest, job: str) -> dict[str, object]:
    view = get(house, f"/jobs/{job}", Prefer="wait=20").json()
    assert view["state"] not in ("waiting", "running"), view
    return dict(view)


def job_of(answer: Answer) -> str:
    assert answer.status == 202, answer
    return str(answer.json()["id"])


def runs(house: HouseUnderTest, number: int) -> int:
    folder = Path(f"/proc/{house.gateway_pid}/cmdline").read_bytes().split(b"\0")[4].decode()
    file = Path(folder).parent / "runs"
    return file.read_text().split().count(str(number)) if file.exists() else 0


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "k" * 256, "a b", "a\tb", "caf\xe9", '""', "a, b"])
@pytest.mark.parametrize("verb", ["jobs", "predict"])
def test_b33_what_is_no_key(house: HouseUnderTest, verb: str, key: str) -> None:
    headers = ACME | JSON | {"Idempotency-Key": key.encode("latin-1").decode("latin-1")}
    check_problem(house.request("POST", f"/models/numbers/{verb}", b"[1]", headers), 400,
                  "idempotency-key-invalid")  # fmt: skip


def test_b33_the_longest_key_is_one(house: HouseUnderTest) -> None:
    first = submit(house, "numbers", [1], Idempotency_Key="~" * 255)
    again = submit(house, "numbers", [1], Idempotency_Key="~" * 255)
    job = first.json()["id"]
    assert again.json()["id"] == job and again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers


def test_b34_a_key_is_for_one_call(house: HouseUnderTest) -> None:
    job = job_of(submit(house, "numbers", [1], Idempotency_Key="b34"))
    for other in (
        submit(house, "numbers", [2], Idempotency_Key="b34"),
        submit(house, "slow", [1, 0], Idempotency_Key="b34"),
        submit(house, "numbers", [1], Idempotency_Key="b34", Headrace_Priority="bulk"),
        predict(house, "numbers", [1], Idempotency_Key="b34"),
    ):
        check_problem(other, 422, "idempotency-key-reuse")
        assert job not in other.body.decode()
    body = b"[1]"
    theirs = house.request(
        "POST", "/models/numbers/jobs", body, OTHER | JSON | {"Idempotency-Key": "b34"}
    )
    assert job_of(theirs) != job, "another tenant's key is another key"


def test_b34_the_same_call_written_otherwise_is_the_same(house: HouseUnderTest) -> None:
    headers = ACME | JSON | {"Idempotency-Key": "b34-space"}
    first = house.request("POST", "/models/numbers/jobs", b"[1, 2]", headers)
    again = house.request("POST", "/models/numbers/jobs", b"[1,2 ]", headers)
    assert job_of(first) == again.json()["id"]


def test_b35_a_key_whose_job_runs_leads_to_that_job(house: HouseUnderTest) -> None:
    first = submit(house, "slow", [35, 400], Idempotency_Key="b35")
    again = submit(house, "slow", [35, 400], Idempotency_Key="b35")
    assert again.status == 202 and again.json()["id"] == job_of(first)
    waited = submit(house, "slow", [35, 400], Idempotency_Key="b35", Prefer="wait=20")
    assert waited.status == 200 and waited.json()["result"] == 35
    assert runs(house, 35) == 1


@pytest.mark.parametrize("verb", ["jobs", "predict"])
def test_b36_fifty_clients_with_one_key(house: HouseUnderTest, verb: str) -> None:
    """One job, one run, and one truth for all."""
    number = {"jobs": 361, "predict": 362}[verb]
    ask = submit if verb == "jobs" else predict

    def client(_: int) -> Answer:
        return ask(house, "slow", [number, 100], Idempotency_Key=f"b36-{verb}")

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(client, range(50)))
    statuses = {answer.status for answer in answers}
    assert statuses <= ({200, 202} if verb == "jobs" else {200}), "200: it has ended meanwhile"
    if verb == "jobs":
        [job] = {answer.json()["id"] for answer in answers}
        assert ended(house, job)["result"] == number
    else:
        [_] = {answer.headers["headrace-job"] for answer in answers}
        assert {answer.json()["result"] for answer in answers} == {number}
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert runs(house, number) == 1
    late = client(0)
    assert late.headers["idempotent-replayed"] == "true" and runs(house, number) == 1


def test_a_failure_is_replayed_as_it_was(house: HouseUnderTest) -> None:
    first = predict(house, "broken", 1, Idempotency_Key="broken")
    again = predict(house, "broken", 1, Idempotency_Key="broken")
    assert first.status == again.status == 500
    assert first.json()["code"] == again.json()["code"]
    assert again.headers["idempotent-replayed"] == "true"


# -- whose -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tenant", ["", "a b", "../x", "a, b", "x" * 129, "-x", None])
def test_who_is_nobody_has_no_jobs(house: HouseUnderTest, tenant: str | None) -> None:
    named = {} if tenant is None else {"X-Tenant": tenant}
    for method, path in (("GET", "/jobs"), ("GET", f"/jobs/{NOBODYS}"),
                         ("POST", "/models/numbers/jobs")):  # fmt: skip
        body = b"[1]" if method == "POST" else None
        answer = house.request(method, path, body, JSON | named)
        check_problem(answer, 400, "tenant-invalid")


def same_but_for_its_id(answer: Answer, job: str) -> tuple[int, dict[str, str], str]:
    request_id = answer.headers["x-request-id"]
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    length = int(headers.pop("content-length")) - len(request_id)
    text = answer.body.decode().replace(request_id, "ID")
    assert job not in text
    return answer.status, headers | {"length": str(length)}, text


def test_b30_anothers_job_is_like_one_that_never_was(house: HouseUnderTest) -> None:
    job = job_of(submit(house, "numbers", [30]))
    assert ended(house, job)["state"] == "succeeded"
    for method, path in (
        ("GET", ""), ("GET", "/result"), ("GET", "/events"), ("DELETE", ""), ("POST", "/replay"),
        ("POST", "/discard"), ("HEAD", ""),
    ):  # fmt: skip
        body = b"" if method == "POST" else None
        theirs, nobodys = (
            house.request(method, f"/jobs/{each}{path}", body, OTHER) for each in (job, NOBODYS)
        )
        assert theirs.status == 404
        if method != "HEAD":
            check_problem(theirs, 404, "job-not-found")
        assert same_but_for_its_id(theirs, job) == same_but_for_its_id(nobodys, job), path
    listed = get(house, "/jobs", OTHER).json()["jobs"]
    assert job not in [each["id"] for each in listed]
    assert get(house, f"/jobs/{job}").json()["state"] == "succeeded", "nothing of it moved"


@pytest.mark.parametrize(
    "job",
    ["x", "0" * 31, "0" * 33, "A" * 32, "%30" * 32, "../jobs", "0" * 32 + "/nothing",
     "0" * 32 + "/", "'--", "%00"],
)  # fmt: skip
def test_what_is_no_job(house: HouseUnderTest, job: str) -> None:
    answer = get(house, f"/jobs/{job}")
    assert answer.status == 404 and answer.json()["code"] in ("job-not-found", "not-found")
    check_no_leak(answer)


# -- lists -----------------------------------------------------------------------------------------


def test_pages_to_the_end(house: HouseUnderTest) -> None:
    mine = {job_of(submit(house, "numbers", [n])) for n in range(7)}
    seen: list[str] = []
    cursor = ""
    while True:
        page = get(house, f"/jobs?limit=3{cursor}").json()
        seen += [each["id"] for each in page["jobs"]]
        if page["next"] is None:
            break
        assert len(page["jobs"]) == 3
        cursor = f"&cursor={page['next']}"
    assert mine <= set(seen) and len(set(seen)) == len(seen) and seen == sorted(seen)[::-1]


def test_b43_cursors(house: HouseUnderTest) -> None:
    for number in range(3):
        job_of(submit(house, "numbers", [number]))
    good = get(house, "/jobs?limit=1").json()["next"]
    assert get(house, f"/jobs?cursor={good}").status == 200
    bad = ["", "x", good[:-3], good + "AAAA", "A" * 40, "%00", "%ff", "'", "9" * 4000, good[::-1]]
    for cursor in bad:
        check_problem(get(house, f"/jobs?cursor={cursor}"), 400, "invalid-cursor")
    check_problem(get(house, f"/jobs?cursor={good}", OTHER), 400, "invalid-cursor")


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=-1", "limit=1e9", "limit=9e999", "limit=", "limit=%D9%A3", "limit=1.5",
     "limit=1&limit=2", "limit[]=1", "limit=" + "9" * 500, "state=", "state=dead&state=failed",
     "state=nothing", "state=dead,nothing", "state[]=dead", "model=%00", "sort=id", "LIMIT=1",
     "limit=0x10", "limit=%2B5", "limit=1_0", "cursor=a&cursor=b"],
)  # fmt: skip
def test_b46_queries(house: HouseUnderTest, query: str) -> None:
    if query == "state=":  # no filter
        assert get(house, f"/jobs?{query}").status == 200
        return
    check_problem(get(house, f"/jobs?{query}"), 422, "validation-failed")


def test_b43_large_limits_are_cut(house: HouseUnderTest) -> None:
    assert get(house, "/jobs?limit=999999999").status == 200
    assert get(house, "/jobs?model=nothing&state=dead,failed").json() == {"jobs": [], "next": None}


# -- methods ---------------------------------------------------------------------------------------

ALLOWED = {
    "/jobs": "GET, HEAD",
    f"/jobs/{NOBODYS}": "DELETE, GET, HEAD",
    f"/jobs/{NOBODYS}/result": "GET, HEAD",
    f"/jobs/{NOBODYS}/events": "GET",
    f"/jobs/{NOBODYS}/replay": "POST",
    f"/jobs/{NOBODYS}/discard": "POST",
    "/models/numbers/jobs": "POST",
}


@pytest.mark.parametrize("path", ALLOWED)
def test_methods(house: HouseUnderTest, path: str) -> None:
    allowed = ALLOWED[path].split(", ")
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        if method in allowed:
            continue
        answer = house.request(method, path, b"" if method[0] == "P" else None, ACME)
        assert answer.status == 405 and answer.headers["allow"] == ALLOWED[path], method
        if method != "HEAD":
            check_problem(answer, 405, "method-not-allowed")


def test_head_is_get_without_a_body(house: HouseUnderTest) -> None:
    job = job_of(submit(house, "numbers", [1]))
    ended(house, job)
    for path in ("/jobs", f"/jobs/{job}", f"/jobs/{job}/result"):
        head, full = house.request("HEAD", path, None, ACME), get(house, path)
        assert head.status == full.status == 200 and head.body == b""
        assert head.headers["content-length"] == full.headers["content-length"]


def test_what_cannot_be_done_now(house: HouseUnderTest) -> None:
    job = job_of(submit(house, "slow", [1, 300]))
    post = {"replay": "job-not-dead", "discard": "job-not-ended"}
    for verb, code in post.items():
        check_problem(house.request("POST", f"/jobs/{job}/{verb}", b"", ACME), 409, code)
    check_problem(get(house, f"/jobs/{job}/result"), 409, "job-not-ended")
    assert ended(house, job)["result"] == 1
    check_problem(house.request("DELETE", f"/jobs/{job}", None, ACME), 409, "job-ended")
    check_problem(house.request("POST", f"/jobs/{job}/replay", b"", ACME), 409, "job-not-dead")
    assert house.request("POST", f"/jobs/{job}/discard", b"", ACME).status == 202
    eventually(lambda: get(house, f"/jobs/{job}").status == 404, 15)


def test_nothing_of_a_model_is_told_but_its_problem(house: HouseUnderTest) -> None:
    job = job_of(submit(house, "broken", 1))
    view = ended(house, job)
    assert view["state"] == "dead"
    for path in ("", "/result"):
        answer = get(house, f"/jobs/{job}{path}")
        assert MARK.encode() not in answer.body and b"Traceback" not in answer.body, answer.body


# -- what is submitted -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"), [(b"", 400), (b"[1", 400), (b'["a"]', 422), (b"{}", 422), (b"\xff", 400)]
)
def test_bad_inputs_are_no_jobs(house: HouseUnderTest, body: bytes, status: int) -> None:
    before = get(house, "/jobs?limit=1").json()["jobs"]
    answer = house.request("POST", "/models/numbers/jobs", body, ACME | JSON)
    assert answer.status == status
    check_no_leak(answer)
    assert get(house, "/jobs?limit=1").json()["jobs"] == before


@pytest.mark.parametrize("value", ["garbage", "", "1e3", "9" * 16, "1.5", "--1"])
def test_b37_garbage(house: HouseUnderTest, value: str) -> None:
    check_problem(submit(house, "numbers", [1], Headrace_Deadline_Ms=value), 400,
                  "deadline-invalid")  # fmt: skip


@pytest.mark.parametrize("value", ["0", "-1", "-99999", "1600000000000"])
def test_b37_past(house: HouseUnderTest, value: str) -> None:
    answer = submit(house, "numbers", [1], Headrace_Deadline_Ms=value)
    check_problem(answer, 504, "deadline-exceeded")


def test_b37_a_year_is_cut_to_a_week(house: HouseUnderTest) -> None:
    year = str(365 * 86_400_000)
    job = job_of(submit(house, "numbers", [1], Headrace_Deadline_Ms=year))
    view = ended(house, job)
    assert float(str(view["deadline"])) - float(str(view["created"])) < 7 * 86_400 + 5


@pytest.mark.parametrize("value", ["", "urgent", "0", "bulk, interactive"])
def test_priorities_that_are_none(house: HouseUnderTest, value: str) -> None:
    answer = submit(house, "numbers", [1], Headrace_Priority=value)
    check_problem(answer, 400, "priority-invalid")


@pytest.mark.parametrize(
    "value", ["wait=banana", ";;;,,,", "wait=-1", "respond-async=?", "=", "\xff"]
)
def test_a_preference_that_is_none_is_ignored(house: HouseUnderTest, value: str) -> None:
    """RFC 7240: a plain call stays one."""
    answer = predict(house, "numbers", [1, 2], Prefer=value)
    assert answer.status == 200 and answer.json()["result"] == 3
    assert submit(house, "numbers", [1], Prefer=value).status == 202


def test_a_wait_that_is_over_is_no_error(house: HouseUnderTest) -> None:
    began = time.monotonic()
    answer = submit(house, "slow", [7, 1500], Prefer="wait=1")
    assert answer.status == 202 and 0.9 < time.monotonic() - began < 1.45
    answer = get(house, f"/jobs/{job_of(answer)}", Prefer="wait=10")
    assert answer.json()["result"] == 7


# -- clients that leave ----------------------------------------------------------------------------


def raw(method: str, path: str, more: str = "", body: bytes = b"") -> bytes:
    length = f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n" if body else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-Tenant: acme\r\n{more}{length}\r\n"
    return head.encode() + body


def test_b38_leaving_in_mid_upload_stores_nothing(house: HouseUnderTest) -> None:
    before = get(house, "/jobs?limit=1").json()["jobs"]
    with house.wire() as wire:
        wire.send(raw("POST", "/models/numbers/jobs", body=b"[1, 2, 3]")[:-3])
    time.sleep(0.1)
    assert get(house, "/jobs?limit=1").json()["jobs"] == before


def test_b38_a_job_outlives_its_client(house: HouseUnderTest) -> None:
    with house.wire() as wire:
        wire.send(raw("POST", "/models/slow/jobs", "Idempotency-Key: b38\r\n", b"[38, 200]"))
        eventually(lambda: runs(house, 38) == 1)
    found = submit(house, "slow", [38, 200], Idempotency_Key="b38", Prefer="wait=10")
    assert found.status == 200 and found.json()["result"] == 38 and runs(house, 38) == 1


def test_long_polls_and_events_of_clients_that_leave(house: HouseUnderTest) -> None:
    """What waits for them ends: the house has no more open than before."""
    job = job_of(submit(house, "slow", [9, 1500]))
    before = house.metric("headrace_gateway_connections")
    wires = [house.wire() for _ in range(20)]
    for number, wire in enumerate(wires):
        path = f"/jobs/{job}/events" if number % 2 else f"/jobs/{job}"
        wire.send(raw("GET", path, "Prefer: wait=30\r\n"))
    time.sleep(0.2)
    for wire in wires:
        wire._socket.close()
    eventually(lambda: house.metric("headrace_gateway_connections") <= before)
    assert ended(house, job)["result"] == 9


def test_events_tell_each_state_and_end(house: HouseUnderTest) -> None:
    job = job_of(submit(house, "slow", [8, 300]))
    with house.wire() as wire:
        wire.send(raw("GET", f"/jobs/{job}/events"))
        everything = wire.rest().decode()
    head, _, events = everything.partition("\r\n\r\n")
    assert "text/event-stream" in head and "content-length" not in head.lower()
    views = [json.loads(line[6:]) for line in events.split("\n") if line.startswith("data: ")]
    states = [view["state"] for view in views]
    assert states[-1] == "succeeded" and set(states) <= {"waiting", "running", "succeeded"}
    assert all(view["id"] == job for view in views)


def test_events_behind_other_requests(house: HouseUnderTest) -> None:
    """Behind one that is not answered yet: refused, in its turn. Behind one that is: told."""
    job = job_of(submit(house, "slow", [6, 600]))
    with house.wire() as wire:
        wire.send(raw("GET", f"/jobs/{job}", "Prefer: wait=10\r\n")
                  + raw("GET", f"/jobs/{job}/events") + LIVE)  # fmt: skip
        assert wire.answer("GET").json()["result"] == 6
        check_problem(wire.answer("GET"), 409, "pipelined")
        assert wire.answer("GET").json() == {"live": True}
        wire.send(LIVE + raw("GET", f"/jobs/{job}/events"))
        assert wire.answer("GET").json() == {"live": True}
        assert b'"succeeded"' in wire.rest()


def test_what_is_sent_behind_events_is_not_read(house: HouseUnderTest) -> None:
    job = job_of(submit(house, "slow", [5, 300]))
    before = get(house, "/jobs?limit=1").json()["jobs"][0]["id"]
    with house.wire() as wire:
        wire.send(raw("GET", f"/jobs/{job}/events"))
        time.sleep(0.1)
        wire.send(raw("POST", "/models/numbers/jobs", body=b"[1]") * 50)
        assert wire.rest().count(b"HTTP/1.1") == 1
    assert get(house, "/jobs?limit=1").json()["jobs"][0]["id"] == before
