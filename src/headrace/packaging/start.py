"""What an image runs: `python -m headrace.packaging.start MODEL@VERSION`, one worker of the one
version that lies in it.

Settings are those of the image's file and the environment. Where the version lies is for the image
to say, whatever they name: no registry is asked.
"""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import structs

from headrace.settings import RegistrySettings, Settings

CODE, HOUSE = "/srv/code", "/srv/house"
#: Overrides where /metrics and /health are served.
METRICS, METRICS_AT = "HEADRACE_METRICS", "0.0.0.0:9100"


def of_image(settings: Settings, house: str = HOUSE) -> Settings:
    """With the version from the image, and everything else where it would have been."""
    return structs.replace(
        settings,
        house=structs.replace(settings.house, state=house),
        database=structs.replace(settings.database, url=settings.database_url()),
        objects=structs.replace(settings.objects, url=settings.objects_url()),
        registry=RegistrySettings(),
    )


def main(workload: str, code: str = CODE, house: str = HOUSE) -> None:
    from headrace import roles
    from headrace.settings import load

    settings = of_image(load(Path(code) / "headrace.toml"), house)
    metrics = os.environ.get(METRICS, METRICS_AT)
    roles.run("worker", settings, roles.run_worker(settings, [workload], metrics))


if __name__ == "__main__":
    import sys

    main(*sys.argv[1:])
