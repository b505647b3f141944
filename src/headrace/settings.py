"""One typed tree of settings, read once at the edge: flag > environment > file > default.

    headrace.toml                      HEADRACE_GATEWAY__LISTEN=0.0.0.0:80
    [gateway]                          (section and key, two underscores between them)
    listen = "127.0.0.1:8100"

An unknown key is an error that names the key, the value and what was expected.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, structs

from headrace.deployments import Deploy
from headrace.monitoring import Monitor
from headrace.policy import Policy
from headrace.retraining import Retrain

PREFIX = "HEADRACE_"

#: host:port, the port at most 65535
_ADDRESS = r"[^:\s]+:(\d{1,4}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])"
Address = Annotated[str, Meta(pattern=f"^{_ADDRESS}$")]
AddressOrNone = Annotated[str, Meta(pattern=f"^({_ADDRESS})?$")]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
PersonName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$")]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class SettingsError(ValueError):
    """A setting is wrong: the message names the key, the value and what was expected."""


class _Section(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A section of the file."""


class House(_Section, frozen=True):
    """What the whole house shares."""

    #: Part of every queue's name: houses of different names share a broker without meeting.
    name: Name = "house"
    #: The folder of what must outlive the house (database, objects), relative to the settings file.
    state: str = ".headrace"


class GatewaySettings(_Section, frozen=True):
    #: Where HTTP is served.
    listen: Address = "127.0.0.1:8100"
    #: Where Open Inference Protocol gRPC is served; "" for not at all.
    grpc: AddressOrNone = ""
    #: Gateway processes, on one port (SO_REUSEPORT).
    count: Positive = 1
    #: The largest body taken; above it 413.
    max_body_bytes: Positive = 20_000_000
    #: Bodies above it travel by reference through the objects.
    inline_limit_bytes: Annotated[int, Meta(ge=1, le=524_288)] = 65_536
    #: A call that names no deadline gets this one.
    default_deadline_ms: Positive = 30_000
    #: No deadline is later; those that ask for more get this.
    max_deadline_ms: Annotated[int, Meta(ge=1, le=600_000)] = 300_000
    #: Calls one gateway holds at once for one model.
    max_outstanding: Positive = 8_192
    #: Inputs in one predict-many call.
    max_many: Positive = 1_000
    #: After SIGTERM calls are still taken for this long while /health/ready says 503: the time that
    #: a load balancer needs to look elsewhere.
    drain_notice_s: Annotated[float, Meta(ge=0)] = 0.0
    #: Time for open calls to be answered after that.
    drain_s: Seconds = 30.0
    #: The header in which a trusted proxy in front names the tenant; "": all are "default".
    tenant_header: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]*$")] = ""


class Retention(_Section, frozen=True):
    """None: as `jobs` says."""

    retain_input_hours: Annotated[float, Meta(ge=0)] | None = None
    retain_result_days: Annotated[float, Meta(gt=0)] | None = None


class BrokerSettings(_Section, frozen=True):
    #: memory://name, nats://host:port[,host:port] or amqp://user:password@host:port/vhost; "" lets
    #: `headrace up` start a NATS server.
    url: str = ""
    #: A job neither acked nor held for this long is given to another worker.
    ack_wait_s: Seconds = 3.0
    #: Jobs that may wait for one model.
    queue_bound: Positive = 10_000


class DatabaseSettings(_Section, frozen=True):
    #: sqlite:///file or postgresql://user:password@host:port/name; "" is a file in `house.state`.
    url: str = ""
    #: Connections of one process.
    connections: Positive = 4
    #: A statement or a commit that takes longer has failed.
    timeout_s: Seconds = 2.0


class ObjectsSettings(_Section, frozen=True):
    #: Where the inputs and results of stored jobs lie that are too large for their row:
    #: file:///folder, s3://bucket, gs://bucket or az://container; "" is a folder in `house.state`.
    url: str = ""
    #: A second place, for when the first is down; "": none.
    fallback: str = ""
    #: Each operation may take this long before the fallback is asked.
    timeout_s: Seconds = 3.0
    #: The file of the keys that inputs and results are sealed with; "": they lie as they are.
    keys: str = ""
    #: Where the bodies of sync calls pass: file:///folder or memory://name; "" is a folder in
    #: memory (/dev/shm) named after the house.
    transit: str = ""


class CacheSettings(_Section, frozen=True):
    #: redis://host:port; "": each gateway has its own alone.
    url: str = ""
    #: Of the part in each gateway's memory.
    max_bytes: Positive = 67_108_864
    #: A shared cache that takes longer is gone without.
    timeout_ms: Positive = 50


class JobsSettings(_Section, frozen=True):
    #: Inputs and results up to this size lie in their row, larger ones in the objects.
    inline_limit_bytes: Annotated[int, Meta(ge=0, le=1_048_576)] = 16_384
    #: A worker that does not renew its lease for this long has lost its jobs.
    lease_s: Seconds = 2.0
    #: A job that names no deadline expires after this long.
    default_ttl_s: Seconds = 86_400.0
    #: No deadline is later.
    max_ttl_s: Seconds = 604_800.0
    #: Runs of one job before it is dead.
    max_attempts: Positive = 5
    #: The wait before a second run; doubled for each further one, with jitter.
    backoff_s: Seconds = 1.0
    #: ... up to this.
    backoff_max_s: Seconds = 300.0
    #: A bulk job that waited this long is treated as an interactive one.
    ageing_s: Seconds = 60.0
    #: Jobs of one model that may wait.
    max_waiting: Positive = 1_000_000
    #: An input is kept this long after its job ended; 0: removed with the end.
    retain_input_hours: Annotated[float, Meta(ge=0)] = 24.0
    #: A result and its row are kept this long after the end.
    retain_result_days: Annotated[float, Meta(gt=0)] = 7.0
    #: Tenants whose inputs and results are kept for other times.
    tenants: dict[str, Retention] = {}


class WebhooksSettings(_Section, frozen=True):
    #: Also send to http:// and to addresses that are not public: for tests and closed sites.
    allow_private: bool = False
    #: The time of one delivery.
    timeout_s: Seconds = 10.0
    #: Deliveries are tried again for this long.
    retry_hours: Seconds = 72.0
    #: Deliveries under way at once to one webhook.
    at_once: Positive = 4


class ClerkSettings(_Section, frozen=True):
    #: Clerk processes that `headrace up` starts.
    count: Annotated[int, Meta(ge=0)] = 1
    #: Pause between two rounds of the books.
    every_s: Seconds = 0.25


class OrchestratorSettings(_Section, frozen=True):
    #: Who starts and stops workers: local:///socket of a house, nomad://host:port/job or
    #: kubernetes://host:port/namespace; "": the house on this machine, if there is one.
    url: str = ""
    #: A file whose one line is the token sent with each request; "": none.
    token_file: str = ""
    #: One request may take this long.
    timeout_s: Seconds = 5.0


class AutoscaleSettings(_Section, frozen=True):
    #: off; shadow: forecasts are stored; advise: people are told, too; act: workloads are scaled.
    mode: Annotated[str, Meta(pattern="^(off|shadow|advise|act)$")] = "off"
    #: Autoscale processes that `headrace up` starts where the mode is not off.
    count: Positive = 1
    #: Minutes and decisions are kept this long.
    keep_days: Seconds = 35.0


class Person(_Section, frozen=True):
    """Somebody who may use the control API over TCP."""

    #: SHA-256 of the token, hex. `headrace control token` makes both.
    token_sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    #: viewer reads; operator changes capacity and versions, too; admin everything.
    role: Annotated[str, Meta(pattern="^(viewer|operator|admin)$")] = "viewer"


class ControlSettings(_Section, frozen=True):
    #: Where the control API is served to the people named below; "": on a socket in `house.state`
    #: alone, which only this user of the machine can open.
    listen: AddressOrNone = ""
    people: dict[PersonName, Person] = {}


class RegistrySettings(_Section, frozen=True):
    #: file:///folder, mlflow://host:port or mlflows://host (TLS); "": a folder in `house.state`.
    url: str = ""
    #: A file whose one line is MLflow's bearer token, or user:password; "": none.
    token_file: str = ""
    #: One answer may take this long.
    timeout_s: Seconds = 10.0
    #: Domains of ONNX operators that are allowed beside ONNX's own.
    domains: tuple[str, ...] = ()
    #: SHA-256 of a Python file in a version -> who has read it, and when.
    trusted: dict[Annotated[str, Meta(pattern="^[0-9a-f]{64}$")], str] = {}
    #: All files of a version together.
    max_bytes: Positive = 8_589_934_592
    #: A file of the secrets that the registry's webhooks are signed with, one a line: two while one
    #: is being rotated; "": none are taken.
    webhook_secrets: str = ""


class NotifySettings(_Section, frozen=True):
    #: A Slack incoming webhook that is told of decisions, overrides and alarms; "": none.
    slack: str = ""
    #: An address that gets the same as JSON; "": none.
    webhook: str = ""
    #: The file of the secret that the JSON is signed with (Standard Webhooks); "": not signed.
    secret_file: str = ""
    #: Messages of one process an hour; what is above is counted in the next one. Alarms come
    #: before decisions.
    most_per_hour: Positive = 30


class TelemetrySettings(_Section, frozen=True):
    #: debug, info, warning or error.
    log_level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$")] = "info"


class ModelSettings(_Section, frozen=True, rename={"target": "class"}):
    #: "module:Class", looked up beside the settings file first.
    target: Annotated[str, Meta(pattern=r"^[\w.]+:\w+$")]
    #: The folder given to `load`, relative to the settings file.
    files: str = "."
    #: Worker processes that `headrace up` starts.
    workers: Positive = 1
    #: Model processes in each worker (packing).
    slots: Positive = 1
    #: Devices given to the slots in turn: "cpu", "cuda:0", ...
    devices: Annotated[tuple[str, ...], Meta(min_length=1)] = ("cpu",)
    #: Overrides the model's `Batching.max_size`.
    max_size: Positive | None = None
    #: Overrides the model's `Batching.max_wait_ms`.
    max_wait_ms: Annotated[float, Meta(ge=0)] | None = None
    #: `load`, golden call and warm-up may take this long.
    load_limit_s: Seconds = 300.0
    #: A batch that takes longer has its model process killed.
    stuck_after_s: Seconds = 30.0
    #: Results are kept for calls of equal content for this long; 0: each call is run anew.
    cache_ttl_s: Annotated[float, Meta(ge=0)] = 0.0
    #: Overrides `jobs.max_attempts`.
    max_attempts: Positive | None = None
    #: Overrides `jobs.retain_input_hours`.
    retain_input_hours: Annotated[float, Meta(ge=0)] | None = None
    #: Overrides `jobs.retain_result_days`.
    retain_result_days: Annotated[float, Meta(gt=0)] | None = None
    #: How many workers it has, and why: docs/architecture/10-capacity.md. None: always `workers`.
    scale: Policy | None = None
    #: Its versions come from the registry: docs/architecture/15-rollouts.md. None: always `files`.
    deploy: Deploy | None = None
    #: When it is trained again: docs/architecture/18-retraining.md. None: by hand alone.
    retrain: Retrain | None = None
    #: How its calls are watched: docs/architecture/16-monitoring.md. None: not at all.
    monitor: Monitor | None = None


class Settings(_Section, frozen=True):
    house: House = House()
    gateway: GatewaySettings = GatewaySettings()
    broker: BrokerSettings = BrokerSettings()
    database: DatabaseSettings = DatabaseSettings()
    objects: ObjectsSettings = ObjectsSettings()
    cache: CacheSettings = CacheSettings()
    jobs: JobsSettings = JobsSettings()
    webhooks: WebhooksSettings = WebhooksSettings()
    clerk: ClerkSettings = ClerkSettings()
    orchestrator: OrchestratorSettings = OrchestratorSettings()
    autoscale: AutoscaleSettings = AutoscaleSettings()
    control: ControlSettings = ControlSettings()
    notify: NotifySettings = NotifySettings()
    registry: RegistrySettings = RegistrySettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    models: dict[Name, ModelSettings] = {}
    #: Set by `load`: the folder of the settings file.
    folder: str = "."

    def broker_url(self) -> str:
        return self.broker.url or "nats://127.0.0.1:4222"

    def state(self) -> Path:
        """The folder of what outlives the house."""
        return (Path(self.folder) / self.house.state).resolve()

    def policies(self) -> dict[str, Policy]:
        """Of the models that are scaled."""
        return {
            name: structs.replace(model.scale, model=name)
            for name, model in self.models.items()
            if model.scale
        }

    def database_url(self) -> str:
        return self.database.url or f"sqlite:///{self.state()}/{self.house.name}.db"

    def objects_url(self) -> str:
        return self.objects.url or f"file://{self.state()}/objects"

    def transit_url(self) -> str:
        if self.objects.transit:
            return self.objects.transit
        memory = Path("/dev/shm")  # noqa: S108 - the folder is made for this user alone
        root = memory if memory.is_dir() else Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108
        return f"file://{root}/headrace-{os.getuid()}-{self.house.name}"


def load(
    path: str | Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings of a file (none: defaults), the environment and the flags ("gateway.listen").

    Raises SettingsError.
    """
    tree: dict[str, Any] = {}
    folder = Path.cwd()
    if path is not None:
        tree, folder = _read(Path(path)), Path(path).resolve().parent
    environment = os.environ if environment is None else environment
    for key, value in environment.items():
        if key.startswith(PREFIX) and "__" in key:
            _put(tree, key.removeprefix(PREFIX).lower().split("__"), value)
    for key, value in (flags or {}).items():
        if value is not None:
            _put(tree, key.split("."), value)
    if "folder" in tree:
        raise SettingsError("folder: an unknown key")
    return _convert(tree | {"folder": str(folder)}, str(path or "settings"))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file; write one or name it with -f") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None


def _put(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = value


def _convert(tree: dict[str, Any], source: str) -> Settings:
    models = tree.get("models")
    if isinstance(models, dict):  # one by one, so that an error can name the model
        for name, table in models.items():
            _checked({name: table}, dict[Name, ModelSettings], tree, source, f"models.{name}")
    settings: Settings = _checked(tree, Settings, tree, source, "")
    return settings


def _checked(value: Any, kind: Any, tree: dict[str, Any], source: str, within: str) -> Any:
    try:
        # Not strict: the environment has numbers as text.
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        detail, _, place = str(error).partition(" - at `")
        key = place.rstrip("`").removeprefix("$").replace("[...]", "").lstrip(".")
        key = ".".join(filter(None, (within, key)))
        got = _value_at(tree, key)
        shown = f" = {got!r}" if not isinstance(got, dict) else ""
        known = _known_keys(key) if "unknown field" in detail else ""
        expected = EXPECTED.get(key.rpartition(".")[2], "") if "regex" in detail else ""
        detail = expected or detail
        raise SettingsError(f"{source}: {key or 'the file'}{shown}: {detail}{known}") from None


#: What a pattern means, for a person.
EXPECTED = {
    "class": 'expected "module:Class"',
    "listen": 'expected "host:port"',
    "grpc": 'expected "host:port", or "" for no gRPC',
    "name": "expected 1 to 63 of a-z, 0-9, - and _",
    "log_level": "expected debug, info, warning or error",
    "mode": "expected off, shadow, advise or act",
    "role": "expected viewer, operator or admin",
    "token_sha256": "expected 64 of 0-9 and a-f",
}


def _value_at(tree: Any, key: str) -> Any:
    for part in filter(None, key.split(".")):
        tree = tree.get(part, {}) if isinstance(tree, dict) else {}
    return tree


def _known_keys(key: str) -> str:
    kinds: dict[str, type[msgspec.Struct]] = {
        "": Settings, "house": House, "gateway": GatewaySettings, "broker": BrokerSettings,
        "database": DatabaseSettings, "objects": ObjectsSettings, "cache": CacheSettings,
        "jobs": JobsSettings, "webhooks": WebhooksSettings, "clerk": ClerkSettings,
        "telemetry": TelemetrySettings, "orchestrator": OrchestratorSettings,
        "autoscale": AutoscaleSettings, "control": ControlSettings, "notify": NotifySettings,
        "registry": RegistrySettings,
    }  # fmt: skip
    kind = kinds.get(key, ModelSettings)
    names = [field.encode_name for field in msgspec.structs.fields(kind)]
    return f"; expected one of {', '.join(n for n in names if n != 'folder')}"
