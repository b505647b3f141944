"""`mlflow://host:port` (`mlflows://` over TLS): runs in MLflow 3, over its REST interface.

    experiment headrace/wines
      run 20261122-193201-4f2a     parameters, metrics, tags of data, code and version
        headrace.record.0 ...      the record itself, in as many tags as it needs
        train/loss                 what a step reported, as a series

Who looks at it in MLflow sees a run like any other; we read back the record alone.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec

from headrace.errors import Unavailable
from headrace.pipeline.run import ENDED, Run
from headrace.pipeline.track import Point, RunUnknown

PREFIX = "headrace/"
RUN_TAG, COUNT_TAG, PART_TAG = "headrace.run", "headrace.parts", "headrace.record."
#: MLflow cuts tags off at 8,000 characters, parameters at 6,000.
PART, VALUE = 4_000, 5_000
PAGE = 100
TIMEOUT_S = 10.0
_STATES = {"failed": "FAILED", "refused": "FINISHED", "succeeded": "FINISHED"}
#: A record is looked at again where it is just being written.
READ_TRIES = 5

Found = dict[str, Any]


class MlflowTracker:
    """`token`: a bearer's, or "user:password"."""

    def __init__(self, url: str, *, token: str = "", timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if not parts.hostname:
            raise ValueError(f"{parts.scheme}:// names no host")
        user, _, place = parts.netloc.rpartition("@")
        scheme = "https" if parts.scheme == "mlflows" else "http"
        token = token or user
        headers = {"authorization": f"Bearer {token}"} if token and ":" not in token else {}
        self.shown = f"{parts.scheme}://{place}"
        self._http = httpx.Client(
            base_url=urlunsplit(
                (scheme, place, f"{parts.path.rstrip('/')}/api/2.0/mlflow/", "", "")
            ),
            auth=httpx.BasicAuth(*token.split(":", 1)) if ":" in token else None,
            headers=headers,
            timeout=timeout_s,
            trust_env=False,
        )
        #: Our id -> MLflow's, and how many reports it has.
        self._known: dict[str, str] = {}
        self._reports: dict[str, int] = {}
        self._described: set[str] = set()

    def create(self, run: Run) -> bool:
        """Two who create the same run at the same time make two of it: the older one is read."""
        if self._find(run.id) is not None:
            return False
        made = self._post(
            "runs/create",
            experiment_id=self._experiment(run.pipeline),
            run_name=run.id,
            start_time=_ms(run.created),
            tags=[{"key": RUN_TAG, "value": run.id}],
        )
        self._known[run.id] = made["run"]["info"]["run_id"]
        self.write(run)
        return True

    def write(self, run: Run) -> None:
        if run.id not in self._known and self._find(run.id) is None:
            self.create(run)
            return
        if run.began and run.id not in self._described:
            self._describe(run)
        now = _ms(time.time())
        measured = [
            {"key": name, "value": value, "timestamp": now, "step": 0}
            for name, value in run.metrics.items()
        ]
        self._batch(run, metrics=measured, tags=_pairs(_tags(run)))
        state = _STATES.get(run.state, "RUNNING")
        ended = {"end_time": _ms(run.ended)} if run.state in ENDED else {}
        self._post("runs/update", run_id=self._known[run.id], status=state, **ended)

    def _describe(self, run: Run) -> None:
        """Its parameters: whole once it has begun, and never another value for one, says MLflow."""
        found = self._find(run.id) or {"data": {}}
        there = {each["key"] for each in found["data"].get("params", [])}
        named = {name: str(value)[:VALUE] for name, value in run.params.items()}
        self._batch(run, params=_pairs({k: v for k, v in named.items() if k not in there}))
        self._described.add(run.id)

    def report(self, run: Run, point: Point) -> None:
        step = self._reports.get(run.id)
        if step is None:
            step = len(self.series(run.id))
        self._reports[run.id] = step + 1
        told = [
            {
                "key": f"{point.step}/{name}",
                "value": value,
                "timestamp": _ms(point.at),
                "step": step,
            }
            for name, value in point.metrics.items()
        ]
        self._batch(run, metrics=told)

    def get(self, id: str) -> Run:
        for _ in range(READ_TRIES):
            found = self._find(id)
            if found is None:
                break
            run = _record(found)
            if run is not None:
                return run
        raise RunUnknown(f"{id}: no such run")

    def series(self, id: str) -> list[Point]:
        found = self._find(id)
        if found is None:
            return []
        points: dict[tuple[int, str], Point] = {}
        for metric in found["data"].get("metrics", []):
            step, _, name = metric["key"].partition("/")
            if not name:
                continue
            for each in self._history(found["info"]["run_id"], metric["key"]):
                key = (each.get("step", 0), step)
                point = points.setdefault(key, Point(each["timestamp"] / 1000, step, {}))
                point.metrics[name] = each["value"]
        return [points[key] for key in sorted(points)]

    def runs(self, most: int, pipeline: str = "") -> list[Run]:
        where = f"name = '{PREFIX}{pipeline}'" if pipeline else f"name LIKE '{PREFIX}%'"
        ids = [each["experiment_id"] for each in self._experiments(where)]
        if not ids:
            return []
        found = self._search(ids, "", most)
        runs = [run for run in map(_record, found) if run is not None]
        return sorted(runs, key=lambda run: (run.created, run.id), reverse=True)

    def close(self) -> None:
        self._http.close()

    # -- MLflow's REST interface ---------------------------------------------------------------

    def _find(self, id: str) -> Found | None:
        if id in self._known:
            found: Found = self._get("runs/get", run_id=self._known[id])["run"]
            return found
        if not id or set(id) - set("abcdefghijklmnopqrstuvwxyz0123456789-"):
            return None
        ids = [each["experiment_id"] for each in self._experiments(f"name LIKE '{PREFIX}%'")]
        found_all = self._search(ids, f"tags.`{RUN_TAG}` = '{id}'", PAGE) if ids else []
        if not found_all:
            return None
        oldest = min(found_all, key=lambda each: each["info"]["start_time"])
        self._known[id] = oldest["info"]["run_id"]
        return oldest

    def _experiments(self, where: str) -> list[Found]:
        found: list[Found] = []
        token = ""
        while True:
            page = self._post(
                "experiments/search", filter=where, max_results=1000, page_token=token
            )
            found += page.get("experiments", [])
            token = page.get("next_page_token", "")
            if not token:
                return found

    def _experiment(self, pipeline: str) -> str:
        name = f"{PREFIX}{pipeline}"
        for _ in range(2):
            found = self._experiments(f"name = '{name}'")
            if found:
                return str(found[0]["experiment_id"])
            made = self._answer(
                lambda: self._http.post("experiments/create", json={"name": name}), may_exist=True
            )
            if "experiment_id" in made:
                return str(made["experiment_id"])
        raise Unavailable(f"{self.shown}: {name} is there, and not found")

    def _search(self, ids: list[str], where: str, most: int) -> list[Found]:
        found: list[Found] = []
        token = ""
        while len(found) < most:
            page = self._post(
                "runs/search",
                experiment_ids=ids,
                filter=where,
                max_results=min(PAGE, most - len(found)),
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
            found += page.get("runs", [])
            token = page.get("next_page_token", "")
            if not token:
                break
        return found

    def _history(self, run: str, key: str) -> list[Found]:
        found: list[Found] = self._get(
            "metrics/get-history", run_id=run, metric_key=key, max_results=10_000
        ).get("metrics", [])
        return found

    def _batch(self, run: Run, **told: list[Found]) -> None:
        if run.id not in self._known and self._find(run.id) is None:
            raise Unavailable(f"{self.shown}: run {run.id} is gone")
        if any(told.values()):
            self._post("runs/log-batch", run_id=self._known[run.id], **told)

    def _get(self, path: str, **asked: Any) -> Found:
        return self._answer(lambda: self._http.get(path, params=asked))

    def _post(self, path: str, **body: Any) -> Found:
        return self._answer(lambda: self._http.post(path, json=body))

    def _answer(self, ask: Any, may_exist: bool = False) -> Found:
        try:
            response: httpx.Response = ask()
        except httpx.HTTPError as error:
            said = str(error) or type(error).__name__
            raise Unavailable(f"tracking at {self.shown}: {said}") from None
        if may_exist and "RESOURCE_ALREADY_EXISTS" in response.text:
            return {}
        if response.status_code != 200:
            said = response.text[:300]
            raise Unavailable(f"tracking at {self.shown}: {response.status_code}: {said}")
        answer: Found = response.json()
        return answer


def _tags(run: Run) -> dict[str, str]:
    record = msgspec.json.encode(run).decode()
    parts = [record[at : at + PART] for at in range(0, len(record), PART)]
    shut = [verdict.gate for verdict in run.verdicts if not verdict.passed]
    said = {
        "headrace.state": run.state,
        "headrace.target": run.target,
        "headrace.model": run.model,
        "headrace.version": run.version,
        "headrace.data": run.data,
        "headrace.gates_shut": ", ".join(shut)[:VALUE],
        "mlflow.source.git.commit": run.code.commit,
        "mlflow.source.name": run.target,
        **{f"headrace.file.{name}": digest for name, digest in run.artifacts.items()},
    }
    # The digest of all parts in the first tag: half of one record and half of another are none.
    whole = hashlib.sha256(record.encode()).hexdigest()
    return {
        COUNT_TAG: f"{len(parts)} {whole}",
        **{f"{PART_TAG}{number}": part for number, part in enumerate(parts)},
        **{name: value for name, value in said.items() if value},
    }


def _record(found: Found) -> Run | None:
    """None where it is none of ours, or is being written."""
    tags = {tag["key"]: tag["value"] for tag in found["data"].get("tags", [])}
    count, _, whole = tags.get(COUNT_TAG, "").partition(" ")
    if not count.isdigit():
        return None
    text = "".join(tags.get(f"{PART_TAG}{number}", "") for number in range(int(count)))
    if hashlib.sha256(text.encode()).hexdigest() != whole:
        return None
    return msgspec.json.decode(text, type=Run)


def _pairs(named: dict[str, str]) -> list[Found]:
    return [{"key": name, "value": value} for name, value in named.items()]


def _ms(at: float) -> int:
    return int(at * 1000)
