"""Calls a running eKYC house on real images and shows the answers, with the time of each stage.

python examples/ekyc/demo.py http://127.0.0.1:8100
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

HERE = Path(__file__).resolve().parent
PHOTOS = HERE / "weights" / "images"
SPECIMENS = HERE / "specimens"
CALL_LIMIT_S = 60.0
STAGES = ("read", "queued", "gathered", "features", "executed", "returned", "total")


@dataclass(frozen=True)
class Answer:
    """What the gateway said to one call."""

    model: str
    images: str
    result: dict[str, Any]
    timings: dict[str, float]


def main() -> int:
    base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8100"
    console = Console()
    try:
        with httpx.Client(base_url=base_url, timeout=CALL_LIMIT_S) as house:
            show(console, house)
    except httpx.HTTPStatusError as error:
        console.print(
            f"[red]{error.request.url}: {error.response.status_code}[/] {error.response.text}"
        )
        return 1
    except httpx.TransportError as error:
        console.print(
            f"[red]No house answers at {base_url}[/] ({type(error).__name__}). Start one:\n"
            "  headrace up -f examples/ekyc/headrace.toml"
        )
        return 1
    return 0


def show(console: Console, house: httpx.Client) -> None:
    same = match(house, "obama.jpg", "obama2.jpg")
    other = match(house, "obama.jpg", "biden.jpg")
    nobody = match(house, "obama.jpg", "coffee.png")
    console.print(match_table([same, other, nobody]))
    live = predict_image(house, "liveness", PHOTOS / "astronaut.png")
    console.print(liveness_panel(live))
    passport = predict_image(house, "document", SPECIMENS / "td3-turned.jpg")
    console.print(document_table(passport))
    console.print(stage_table([same, other, nobody, live, passport]))


# -- calls


def match(house: httpx.Client, left: str, right: str) -> Answer:
    """Two images in one call: a part of multipart/form-data for each field of the input."""
    parts = {
        side: (name, (PHOTOS / name).read_bytes(), media_type(name))
        for side, name in (("left", left), ("right", right))
    }
    reply = house.post("/models/face-match/predict", files=parts)
    return answer("face-match", f"{left}, {right}", reply)


def predict_image(house: httpx.Client, model: str, path: Path) -> Answer:
    """One image in one call: the image itself is the body."""
    headers = {"Content-Type": media_type(path.name)}
    reply = house.post(f"/models/{model}/predict", content=path.read_bytes(), headers=headers)
    return answer(model, path.name, reply)


def answer(model: str, images: str, reply: httpx.Response) -> Answer:
    reply.raise_for_status()
    body = reply.json()
    return Answer(model, images, body["result"], body["timings"])


def media_type(name: str) -> str:
    return "image/png" if name.endswith(".png") else "image/jpeg"


# -- tables


def match_table(answers: list[Answer]) -> Table:
    table = Table("photos", "outcome", "same person", "score", "cosine", title="Face match")
    for one in answers:
        result = one.result
        same = {True: "[green]yes[/]", False: "[yellow]no[/]", None: "-"}[result["same"]]
        said = result["outcome"] + (f" ({result['reason']})" if result["reason"] else "")
        table.add_row(
            one.images,
            said,
            same,
            number(result["score"], 3),
            number(result["cosine"], 3),
        )
    return table


def liveness_panel(one: Answer) -> Panel:
    result = one.result
    verdict = {True: "live", False: "not live", None: result["outcome"]}[result["live"]]
    text = f"{one.images}: {verdict}, score {number(result['score'], 3)}"
    return Panel(text, title="Face liveness (advisory, uncertified)", expand=False)


def document_table(one: Answer) -> Table:
    """The fields of both zones side by side, and whether they agree."""
    mrz, visual, agrees = one.result["mrz"], one.result["visual"], one.result["agreement"]
    table = Table(
        "field",
        "machine readable zone",
        "printed",
        "agree",
        title=f"Identity document: {one.images}",
    )
    names = ["document_code", "state", "surname", "given_names", "number", "nationality"]
    names += ["birth_date", "sex", "issue_date", "expiry_date", "personal_number"]
    for name in names:
        table.add_row(
            name.replace("_", " "),
            mrz.get(name, ""),
            visual.get(name, ""),
            {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[agrees.get(name)],
        )
    checks = ", ".join(f"{name} {'ok' if ok else 'WRONG'}" for name, ok in mrz["checks"].items())
    inside = ", ".join(f"{name} {ms:.0f} ms" for name, ms in one.result["timings_ms"].items())
    table.caption = f"check digits: {checks}\nmended by place or check digit: " + (
        "; ".join(mrz["repaired"]) or "nothing"
    )
    table.caption += f"\ninside the model: {inside}"
    return table


def stage_table(answers: list[Answer]) -> Table:
    """Where the time of each call went, in ms: the stages add up to the total."""
    table = Table("call", *STAGES, title="Time in each stage, ms", padding=(0, 0))
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for one in answers:
        table.add_row(one.model, *(number(one.timings.get(f"{s}_ms"), 1) for s in STAGES))
    return table


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
