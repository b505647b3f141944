"""The text files of a build context: how the image is made, and the settings in it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from headrace.packaging.start import CODE, HOUSE
from headrace.settings import ModelSettings

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
BASE = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
USER = "10001:10001"
ROOM = "/opt/headrace"


class Layer(NamedTuple):
    """`folder`: in the context. `place`: in the image. `changes`: with what it does."""

    name: str
    folder: str
    place: str
    changes: str


#: What changes least comes first: layers above one that changed are made and moved again.
LAYERS = (
    Layer("dependencies", "1-dependencies", f"{ROOM}/dependencies", "with the lock"),
    Layer("headrace", "2-headrace", f"{ROOM}/package", "with headrace's version"),
    Layer("code", "3-code", CODE, "with the author's code"),
    Layer("version", "4-version", HOUSE, "with each version"),
)

#: Of a model's settings, what a worker alone can use.
_KEPT = (
    "target", "slots", "devices", "max_size", "max_wait_ms", "load_limit_s", "stuck_after_s",
    "max_attempts",
)  # fmt: skip

IGNORE = "*\n" + "".join(f"!{layer.folder}\n" for layer in LAYERS)


def containerfile(workload: str, base: str, labels: Mapping[str, str]) -> str:
    copies = "\n".join(
        f"# Changes {layer.changes}.\nCOPY --chown=0:0 {layer.folder}/ {layer.place}/"
        for layer in LAYERS
    )
    said = " \\\n    ".join(f"{key}={_quoted(value)}" for key, value in sorted(labels.items()))
    return f"""\
# {workload}, as `headrace build` wrote it: copies alone, nothing is fetched and nothing run.
# The base needs {PYTHON} and the C library that the wheels are of, and no more.
ARG BASE={base}
FROM ${{BASE}}

{copies}

ENV PYTHONPATH={LAYERS[1].place}:{LAYERS[0].place} \\
    PYTHONDONTWRITEBYTECODE=1 \\
    PYTHONUNBUFFERED=1
LABEL {said}

USER {USER}
WORKDIR {CODE}
EXPOSE 9100
STOPSIGNAL SIGTERM
ENTRYPOINT ["{PYTHON}", "-m", "headrace.packaging.start", "{workload}"]
"""


def settings_toml(name: str, model: ModelSettings, house: str) -> str:
    """The image's headrace.toml: the house's name and the model's own section. All that is of a
    place or a secret comes from the environment."""
    default = ModelSettings(target=model.target)
    lines = ["[house]", f"name = {json.dumps(house)}", "", f"[models.{name}]"]
    for key in _KEPT:
        value = getattr(model, key)
        if key == "target":
            lines.append(f"class = {json.dumps(value)}")
        elif value != getattr(default, key):
            lines.append(f"{key} = {msgspec.json.encode(value).decode()}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """For a LABEL: no variables are put in."""
    return json.dumps(text).replace("$", "\\$")
