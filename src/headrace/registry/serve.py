"""MLflow as a part of a house: one process, on a SQLite file and a folder in `house.state`.

`mlflow server` starts ten processes; its app under one uvicorn does what a registry needs in one of
260 MB. The variables that say where its data lie are private to MLflow, so its version is pinned,
and the exam runs against what is started here.
"""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

from headrace.registry import disk

PINNED = "3.17.2"  # 3.18.0 cannot be installed
INSTALL = f"pip install 'mlflow=={PINNED}'"
APP = "mlflow.server.fastapi_app:app"
_PROBE = (
    "import importlib.metadata as m, importlib.util as u;"
    "print(m.version('mlflow') if u.find_spec('mlflow.server.fastapi_app') else '')"
)


class NoMlflow(ImportError):
    """This Python has no MLflow, or another one."""


def check(python: str) -> None:
    """Raises NoMlflow. Imports nothing of MLflow in this process."""
    done = subprocess.run([python, "-c", _PROBE], capture_output=True, text=True, check=False)
    found = done.stdout.strip()
    if done.returncode or not found:
        raise NoMlflow(f"{python} has no MLflow: {INSTALL}")
    if found != PINNED:
        raise NoMlflow(f"{python} has MLflow {found}; headrace knows {PINNED}: {INSTALL}")


def command(python: str, host: str, port: int) -> list[str]:
    return [
        python, "-m", "uvicorn", APP, "--host", host, "--port", str(port),
        "--log-level", "warning", "--no-access-log", "--timeout-graceful-shutdown", "10",
    ]  # fmt: skip


def environment(state: Path, *, private_webhooks: bool = False) -> dict[str, str]:
    """What the process needs to be told, beside what it inherits. `private_webhooks`: it may send
    webhooks to http:// and to this network. Makes the folder and the key of MLflow's own secrets.
    Raises OSError."""
    folder = state.resolve() / "mlflow"
    (folder / "artifacts").mkdir(parents=True, exist_ok=True, mode=0o700)
    told = {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/mlflow.db",
        "_MLFLOW_SERVER_REGISTRY_STORE": f"sqlite:///{folder}/mlflow.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": f"file://{folder}/artifacts",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": _key(folder / "webhook-key"),
        "PYTHONWARNINGS": "ignore",
    }
    if private_webhooks:
        told |= {
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        }
    return told


def _key(path: Path) -> str:
    """Fernet's form: 32 random bytes, URL-safe base64."""
    from base64 import urlsafe_b64encode

    with disk.locked(path.parent):
        if not path.exists():
            disk.write(path, urlsafe_b64encode(secrets.token_bytes(32)))
            path.chmod(0o600)
    return path.read_text()
