"""`mlflow://host:port` (`mlflows://` over TLS): MLflow 3 over its REST interface, with httpx.

    registered model iris
      version 3           tags headrace.listing, headrace.manifest: what pins it
        run ...           of the pipeline where there is one, else one of ours
          artifacts/headrace/DIGEST/model.onnx
      alias production

No client library of MLflow: nineteen requests do, and `mlflow-skinny` alone is 116 MB. The server
must serve artifacts itself (`--serve-artifacts`, its default).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import httpx
import msgspec

from headrace.errors import NotFound
from headrace.registry.port import Inspected, State
from headrace.registry.refusals import Rejected, no_version, unavailable
from headrace.registry.version import (
    MANIFEST,
    MODEL,
    File,
    Version,
    checked_alias,
    checked_model,
    digest_of,
    listing_of,
    version_of,
)

EXPERIMENT = HOOK = "headrace"
LISTING_TAG, MANIFEST_TAG = "headrace.listing", "headrace.manifest"
CHUNK = 1 << 20
PAGE = 100
MAX_PAGES = 200
MAX_ANSWER = 64 << 20  # a page of a hundred versions has 17 MB at most
_API, _ARTIFACTS = "/api/2.0/mlflow/", "/api/2.0/mlflow-artifacts/artifacts/"
_SCHEME = "mlflow-artifacts:/"
_ALIAS = "MODEL_VERSION_ALIAS"
_EVENTS = [{"entity": _ALIAS, "action": "CREATED"}, {"entity": _ALIAS, "action": "DELETED"}]
_T = TypeVar("_T")


class MlflowRegistry:
    """`timeout_s`: of an answer; of files, between two pieces. `token`: a bearer's, or
    "user:password"."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 10.0,
        token: str = "",
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        parts = urlsplit(url)
        if not parts.hostname:
            raise ValueError(f"{parts.scheme}:// names no host")
        scheme = "https" if parts.scheme == "mlflows" else "http"
        user, _, place = parts.netloc.rpartition("@")
        token = token or user
        self.shown = f"{parts.scheme}://{place}{parts.path}"
        self._base = urlunsplit((scheme, place, parts.path.rstrip("/"), "", ""))
        self._timeout_s = timeout_s
        headers, auth = {}, None
        if ":" in token:
            auth = httpx.BasicAuth(*token.split(":", 1))
        elif token:
            headers["authorization"] = f"Bearer {token}"
        self._http = httpx.AsyncClient(
            timeout=timeout_s,
            headers=headers,
            auth=auth,
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )

    async def open(self) -> None:
        """httpx connects when it is asked."""

    async def close(self) -> None:
        await self._http.aclose()

    async def register(self, inspected: Inspected) -> Version:
        manifest, listing = inspected.manifest, listing_of(inspected.files)
        for known in await self.versions(manifest.model):
            if known.digest == digest_of(listing):
                return known
        run, place = await self._place(manifest.run)
        place = f"{place}/headrace/{digest_of(listing).removeprefix('sha256:')}"
        for file in inspected.files:
            await self._put(f"{place}/{file.path}", inspected.folder / file.path, file)
        said = await asyncio.to_thread((inspected.folder / MANIFEST).read_text)
        await self._make_model(manifest.model)
        tags = {LISTING_TAG: listing, MANIFEST_TAG: said}
        made = await self._post(
            "model-versions/create",
            name=manifest.model,
            source=_SCHEME + place,
            run_id=run,
            tags=[{"key": key, "value": value} for key, value in tags.items()],
        )
        return _version(self._there(made.model_version))

    async def versions(self, model: str) -> list[Version]:
        found = []
        asked = {"filter": f"name='{checked_model(model)}'", "order_by": "version_number DESC"}
        async for answer in self._pages("model-versions/search", asked):
            for entry in answer.model_versions:
                with suppress(Rejected):  # `get` says what is wrong with it
                    found.append(_version(entry))
        return found

    async def get(self, model: str, number: int) -> Version:
        return _version(await self._entry(model, number))

    async def state(self) -> State:
        return {
            model.name: {alias.alias: alias.version for alias in model.aliases}
            async for answer in self._pages("registered-models/search", {})
            for model in answer.registered_models
            if re.fullmatch(MODEL, model.name)
        }

    async def point(self, model: str, alias: str, number: int | None) -> int | None:
        checked_alias(alias)
        if number is not None:
            await self.get(model, number)
        try:
            known = await self._get("registered-models/get", name=checked_model(model))
        except NotFound:
            return None  # then nothing is to point at, or `get` would have said so
        aliases = self._there(known.registered_model).aliases
        before = next((one.version for one in aliases if one.alias == alias), None)
        if before == number:
            return before
        said: dict[str, Any] = {"name": model, "alias": alias}
        if number is None:
            await self._ask("DELETE", "registered-models/alias", said)
        else:
            await self._post("registered-models/alias", **said, version=str(number))
        return before

    async def hook(self, url: str, secret: str) -> str:
        said = {"name": HOOK, "url": url, "events": _EVENTS, "secret": secret, "status": "ACTIVE"}
        known = [
            hook.webhook_id
            async for answer in self._pages("webhooks", {})
            for hook in answer.webhooks
            if hook.url == url
        ]
        for hook_id in known:
            await self._ask("PATCH", f"webhooks/{hook_id}", said)
        made = ""
        if not known:
            made = self._there((await self._post("webhooks", **said)).webhook).webhook_id
        tried = self._there((await self._post(f"webhooks/{made or known[0]}/test")).result)
        if tried.success:
            return ""
        if made:  # a wrong address is not to get what moves from now on
            await self._ask("DELETE", f"webhooks/{made}", {})
        told = f"{tried.response_status or ''} {tried.error_message or ''}".strip()[:300]
        return told or "no reason was given"

    async def chunks(self, version: Version, file: File) -> AsyncIterator[bytes]:
        source = (await self._entry(version.model, version.number)).source
        place = source.removeprefix(_SCHEME)
        if place == source:
            raise Rejected(f"{version.name} lies at {source[:200]!r}, not in MLflow's own store")
        url = f"{self._base}{_ARTIFACTS}{quote(f'{place}/{file.path}')}"
        # As they are: what is compressed on the way would have another length.
        headers = {"accept-encoding": "identity"}
        try:
            async with self._http.stream("GET", url, headers=headers) as answer:
                if answer.status_code == 404:
                    raise no_version(version.model, version.number)
                if answer.status_code != 200:
                    raise unavailable(f"{self.shown}: {answer.status_code} for {file.path}")
                async for chunk in answer.aiter_raw(CHUNK):
                    yield chunk
        except httpx.HTTPError as error:
            raise unavailable(f"{self.shown}: {_said(error)}") from error

    # -- requests ----------------------------------------------------------------------------

    async def _entry(self, model: str, number: int) -> _Version:
        try:
            asked = {"name": checked_model(model), "version": str(number)}
            return self._there((await self._get("model-versions/get", **asked)).model_version)
        except NotFound:
            raise no_version(model, number) from None

    async def _place(self, run: str) -> tuple[str, str]:
        """A run, and where its artifacts lie: the pipeline's, where MLflow knows it."""
        if re.fullmatch(r"[0-9a-f]{32}", run):
            with suppress(NotFound):
                return self._of_run(await self._get("runs/get", run_id=run))
        experiment = await self._experiment()
        made = await self._post("runs/create", experiment_id=experiment, run_name="register")
        found = self._of_run(made)
        await self._post("runs/update", run_id=found[0], status="FINISHED")
        return found

    def _of_run(self, answer: _Answer) -> tuple[str, str]:
        info = self._there(answer.run).info
        place = info.artifact_uri.removeprefix(_SCHEME)
        if place == info.artifact_uri:
            raise unavailable(
                f"{self.shown}: it keeps artifacts at {place[:200]!r}; start it with "
                "--serve-artifacts, so that it takes and gives them itself"
            )
        return info.run_id, place

    async def _experiment(self) -> str:
        with suppress(_Exists):
            try:
                known = await self._get("experiments/get-by-name", experiment_name=EXPERIMENT)
                return self._there(known.experiment).experiment_id
            except NotFound:
                return (await self._post("experiments/create", name=EXPERIMENT)).experiment_id
        return await self._experiment()

    async def _make_model(self, model: str) -> None:
        with suppress(_Exists):
            await self._post("registered-models/create", name=model)

    async def _put(self, place: str, path: Path, file: File) -> None:
        """Raises Rejected where the file is no longer the one that was inspected."""
        url = f"{self._base}{_ARTIFACTS}{quote(place)}"
        headers = {"content-length": str(file.bytes)}
        content = _pieces(path, file)
        try:
            async with self._http.stream("PUT", url, content=content, headers=headers) as answer:
                await self._read(answer)
        except httpx.HTTPError as error:
            raise unavailable(f"{self.shown}: {_said(error)}") from error

    async def _pages(self, path: str, asked: dict[str, str]) -> AsyncIterator[_Answer]:
        asked = asked | {"max_results": str(PAGE)}
        for _ in range(MAX_PAGES):
            answer = await self._get(path, **asked)
            yield answer
            if not answer.next_page_token:
                return
            asked["page_token"] = answer.next_page_token
        raise unavailable(f"{self.shown}: {path} has no end")

    async def _get(self, path: str, **asked: str) -> _Answer:
        return await self._ask("GET", path, None, asked)

    async def _post(self, path: str, **said: Any) -> _Answer:
        return await self._ask("POST", path, said)

    async def _ask(
        self, method: str, path: str, said: Any, asked: dict[str, str] | None = None
    ) -> _Answer:
        """Raises NotFound; _Exists; Unavailable."""
        url = f"{self._base}{_API}{path}"
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._http.stream(method, url, params=asked, json=said) as answer,
            ):
                return await self._read(answer)
        except (httpx.HTTPError, TimeoutError) as error:
            raise unavailable(f"{self.shown}: {_said(error)}") from error

    async def _read(self, answer: httpx.Response) -> _Answer:
        data = bytearray()
        async for chunk in answer.aiter_bytes(CHUNK):
            data += chunk
            if len(data) > MAX_ANSWER:
                raise unavailable(f"{self.shown}: an answer above {MAX_ANSWER:,} bytes")
        try:
            read = msgspec.json.decode(bytes(data) or b"{}", type=_Answer, strict=False)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            words = f"{answer.status_code}, and not as MLflow answers: {error}"
            raise unavailable(f"{self.shown}: {words}") from None
        if read.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise NotFound(read.message[:300], code="model-not-found")
        if read.error_code == "RESOURCE_ALREADY_EXISTS":
            raise _Exists(read.message)
        if answer.status_code != 200 or read.error_code:
            raise unavailable(f"{self.shown}: {answer.status_code} {read.message[:300]}")
        return read

    def _there(self, part: _T | None) -> _T:
        if part is None:
            raise unavailable(f"{self.shown}: not as MLflow answers")
        return part


# -- what MLflow answers, as far as we read it -------------------------------------------------


class _Tag(msgspec.Struct):
    key: str
    value: str = ""


class _Alias(msgspec.Struct):
    alias: str
    version: int


class _Version(msgspec.Struct):
    name: str
    version: int
    creation_timestamp: int = 0  # Unix ms
    source: str = ""
    tags: list[_Tag] = []


class _Model(msgspec.Struct):
    name: str
    aliases: list[_Alias] = []


class _Info(msgspec.Struct):
    run_id: str
    artifact_uri: str


class _Run(msgspec.Struct):
    info: _Info


class _Hook(msgspec.Struct):
    webhook_id: str
    url: str = ""


class _Tried(msgspec.Struct):
    success: bool = False
    response_status: int | None = None
    error_message: str | None = None


class _Experiment(msgspec.Struct):
    experiment_id: str


class _Answer(msgspec.Struct):
    """Of any request: each fills in its own part."""

    model_version: _Version | None = None
    model_versions: list[_Version] = []
    registered_model: _Model | None = None
    registered_models: list[_Model] = []
    run: _Run | None = None
    experiment: _Experiment | None = None
    experiment_id: str = ""
    webhook: _Hook | None = None
    webhooks: list[_Hook] = []
    result: _Tried | None = None
    next_page_token: str = ""
    error_code: str = ""
    message: str = ""


class _Exists(Exception):
    """Somebody was quicker, or it has long been there."""


def _version(entry: _Version) -> Version:
    """Raises Rejected."""
    tags = {tag.key: tag.value for tag in entry.tags}
    if LISTING_TAG not in tags or MANIFEST_TAG not in tags:
        raise Rejected(
            f"{entry.name} {entry.version} was not registered by headrace: it has no digest"
        )
    return version_of(
        entry.name,
        entry.version,
        entry.creation_timestamp / 1000,
        tags[LISTING_TAG],
        tags[MANIFEST_TAG].encode(),
    )


async def _pieces(path: Path, file: File) -> AsyncIterator[bytes]:
    """Raises Rejected, in the middle of the request, where it is no longer the file that it was."""
    digest, left = hashlib.sha256(), file.bytes
    with path.open("rb") as source:
        while chunk := await asyncio.to_thread(source.read, CHUNK):
            digest.update(chunk)
            left -= len(chunk)
            if left < 0:
                break
            yield chunk
    if left or digest.hexdigest() != file.sha256:
        raise Rejected(f"{file.path} has changed since it was looked at")


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
