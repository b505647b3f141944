"""The docs page in a real browser: it reads the API's description, makes calls, and shows answers.

Chromium is driven through chromedriver over the W3C WebDriver protocol, which is plain HTTP: the
forty lines of it that are needed are `Browser`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

pytestmark = pytest.mark.timeout(120)

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
HOW = f"{' and '.join(MISSING)} not found: apt-get install chromium chromium-driver"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--window-size=1280,1000",
]  # fmt: skip

SETTINGS = f"""\
[house]
name = "docs-page"
[models.wine-cultivar]
class = "wine:WineCultivar"
files = "{QUICKSTART}"
[models.pictures]
class = "pictures:Pictures"
[models.thumb]
class = "pictures:Thumb"
"""
PICTURES = '''
from __future__ import annotations
from dataclasses import dataclass, field
import headrace

@dataclass
class Two:
    left: headrace.Image
    right: headrace.Image | None
    note: str | None = None
    marks: list[int] = field(default_factory=list)

class Pictures(headrace.Model):
    """<script>window.pwned = 1</script><img src=x onerror="window.pwned = 2">"""
    def predict(self, pairs: list[Two]) -> list[dict[str, str]]:
        return [
            {"widths": f"{p.left.width} {p.right.width}", "note": p.note, "marks": str(p.marks)}
            for p in pairs
        ]

class Thumb(headrace.Model):
    def predict(self, images: list[headrace.Image]) -> list[dict[str, int]]:
        return [{"width": image.width, "height": image.height} for image in images]
'''


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Browser:
    """One headless Chromium with one page."""

    def __init__(self, profile: Path) -> None:
        port = free_port()
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False,
            transport=httpx.HTTPTransport(retries=10),  # until chromedriver listens
        )  # fmt: skip
        options = {
            "binary": shutil.which("chromium"),
            "args": [*FLAGS, f"--user-data-dir={profile}"],
        }
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        self._base = ""
        try:
            session = self._ask("/session", {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self.close()
            raise
        self._base = f"/session/{session['sessionId']}"

    def _ask(self, path: str, body: dict[str, Any]) -> Any:
        answer = self._http.post(self._base + path, json=body)
        value = answer.json()["value"]
        assert answer.is_success, value["message"]
        return value

    def go(self, url: str) -> None:
        self._ask("/url", {"url": url})

    def js(self, expression: str) -> Any:
        return self._ask("/execute/sync", {"script": f"return {expression}", "args": []})

    def until(self, expression: str, seconds: float = 20) -> Any:
        """The first true value; fails with what the page shows where there is none in time."""
        end = time.monotonic() + seconds
        while not (value := self.js(expression)):
            shown = self.js("document.body.innerText")
            assert time.monotonic() < end, f"not true: {expression}\n{shown}"
            time.sleep(0.05)
        return value

    def _element(self, css: str) -> str:
        found = self._ask("/element", {"using": "css selector", "value": css})
        return f"/element/{next(iter(found.values()))}"

    def click(self, css: str) -> None:
        self._ask(f"{self._element(css)}/click", {})

    def fill(self, css: str, text: str) -> None:
        element = self._element(css)
        if "file" not in css:
            self._ask(f"{element}/clear", {})
        self._ask(f"{element}/value", {"text": text})

    def text(self, css: str) -> str:
        return str(self.js(f"document.querySelector({css!r}).textContent"))

    def complaints(self) -> list[str]:
        """What the console says, but for refused calls, which the tests make on purpose."""
        logged = self._ask("/se/log", {"type": "browser"})
        return [e["message"] for e in logged if "the server responded with" not in e["message"]]

    def close(self) -> None:
        try:
            self._http.delete(self._base)
            self._http.close()
        finally:
            os.killpg(self._driver.pid, signal.SIGKILL)
            self._driver.wait()


class House:
    """A house of three models, as processes."""

    def __init__(self, folder: Path) -> None:
        self.folder, port = folder, free_port()
        self.url = f"http://127.0.0.1:{port}"
        (folder / "headrace.toml").write_text(SETTINGS)
        (folder / "pictures.py").write_text(PICTURES)
        shutil.copy(QUICKSTART / "models.py", folder / "wine.py")
        Image.new("RGB", (40, 30), "teal").save(folder / "small one.png")
        Image.new("RGB", (80, 60), "navy").save(folder / "large;one.jpg")
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "headrace", "up", "-f", str(folder / "headrace.toml")],
                env=os.environ | {"HEADRACE_GATEWAY__LISTEN": f"127.0.0.1:{port}"},
                stdout=log,
                stderr=log,
            )

    def wait_ready(self) -> None:
        end = time.monotonic() + 30
        with httpx.Client(trust_env=False) as client:
            while time.monotonic() < end:
                try:
                    if client.get(f"{self.url}/health/ready").is_success:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.1)
        pytest.fail((self.folder / "log").read_text())

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(40)


@pytest.fixture(scope="module")
def needed() -> None:
    if MISSING and os.environ.get("CI"):
        pytest.fail(HOW)
    if MISSING:
        pytest.skip(HOW)


@pytest.fixture(scope="module")
def house(needed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house"))
    try:
        house.wait_ready()
        yield house
    finally:
        house.close()


@pytest.fixture(scope="module")
def chromium(needed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


class Page:
    """The docs page of one model, loaded anew."""

    def __init__(self, browser: Browser, url: str, model: str) -> None:
        self.browser = browser
        browser.go("about:blank")
        browser.go(f"{url}/docs#/models/{model}")
        browser.until("document.body.dataset.state === 'ready'")
        browser.until(f"document.querySelector('h1')?.textContent === '{model}'")

    def put(self, field: str, text: str, kind: str = "input") -> None:
        self.browser.fill(f"[data-field='{field}'] {kind}", text)

    def send(self) -> str:
        """Presses the button; gives the status line of the answer."""
        self.browser.js("delete document.querySelector('#answer').dataset.done")
        self.browser.click("#try button[type=submit]")
        return str(
            self.browser.until("/^[^…]/.exec(answer.dataset.done || '') && answer.dataset.done")
        )

    def snippet(self, name: str) -> str:
        time.sleep(0.3)  # it follows the form 120 ms later
        place = {"curl": 1, "Python": 2}[name]
        self.browser.click(f"#snippets [role=tab]:nth-child({place})")
        return self.browser.text("#snippets pre")


@pytest.fixture
def wine(chromium: Browser, house: House) -> Page:
    return Page(chromium, house.url, "wine-cultivar")


@pytest.fixture
def pictures(chromium: Browser, house: House) -> Page:
    page = Page(chromium, house.url, "pictures")
    page.put("left", str(house.folder / "small one.png"), "input[type=file]")
    page.put("right", str(house.folder / "large;one.jpg"), "input[type=file]")
    page.put("note", """it's "quoted" """)
    page.put("marks", "[1, 2]", "textarea")
    return page


def run(house: House, *command: str) -> str:
    done = subprocess.run(
        command, cwd=house.folder, check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_lists_the_models_and_their_readiness(wine: Page) -> None:
    names = wine.browser.js("[...document.querySelectorAll('#models a')].map((a) => a.textContent)")
    assert names == ["wine-cultivar", "pictures", "thumb"]
    assert wine.browser.text("#house") == "3 of 3 models ready"
    assert wine.browser.text("[data-ready]") == "ready"


def test_it_loads_nothing_from_elsewhere_and_obeys_its_policy(wine: Page, house: House) -> None:
    loaded = wine.browser.js("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert f"{house.url}/openapi.json" in loaded
    assert [each for each in loaded if not each.startswith((house.url, "data:"))] == []
    assert wine.browser.complaints() == []


def test_it_shows_both_schemas(wine: Page) -> None:
    tree = wine.browser.text(".panel.input .tree")
    assert "alcohol" in tree and "5 to 25" in tree and "% by volume" in tree
    assert "map of number" in wine.browser.text(".panel.result")


def test_a_call_from_the_form_is_answered(wine: Page) -> None:
    assert wine.send() == "200 OK"
    assert '"cultivar": "Barolo"' in wine.browser.text("#answer pre")


def test_the_bar_shows_where_the_time_went(wine: Page) -> None:
    wine.send()
    widths = wine.browser.js("[...answer.querySelectorAll('.bar span')].map((s) => s.offsetWidth)")
    assert len(widths) == 5 and min(widths) > 0
    stages = wine.browser.text("#answer .stages")
    assert all(stage in stages for stage in ("read", "queued", "gathered", "executed", "returned"))


def test_a_bad_field_is_shown_at_the_field(wine: Page) -> None:
    wine.put("alcohol", "99")
    assert wine.send().startswith("422")
    assert "validation-failed" in wine.browser.text("#answer .problem")
    assert "/alcohol" in wine.browser.text("#answer .problem")
    assert "25" in wine.browser.text("[data-field=alcohol].is-wrong .wrong")
    wine.put("alcohol", "13")
    assert wine.send() == "200 OK"
    assert wine.browser.js("document.querySelectorAll('.is-wrong').length") == 0


def test_a_deadline_is_sent(wine: Page) -> None:
    wine.browser.fill(".send input", "2500")
    assert "-H 'Headrace-Deadline-Ms: 2500'" in wine.snippet("curl")
    assert "deadline_s=2.5" in wine.snippet("Python")
    assert wine.send() == "200 OK"
    wine.browser.fill(".send input", "x1")  # the browser keeps the 1
    assert wine.send()[:3] in ("200", "503", "504")


def test_the_snippets_of_a_record_work(wine: Page, house: House) -> None:
    assert '"cultivar":"Barolo"' in run(house, "bash", "-c", wine.snippet("curl"))
    assert "Barolo" in run(house, sys.executable, "-c", wine.snippet("Python"))


def test_images_are_shown_and_sent_as_a_form(pictures: Page) -> None:
    pictures.browser.until(
        "[...document.querySelectorAll('.drop img')].map((i) => i.naturalWidth).join() === '40,80'"
    )
    assert pictures.send() == "200 OK"
    answer = pictures.browser.text("#answer pre")
    assert '"widths": "40 80"' in answer and '"marks": "[1, 2]"' in answer
    assert r'"note": "it\'s \"quoted\" "' in answer.replace("it's", r"it\'s")
    assert pictures.browser.complaints() == []


def test_the_snippets_of_a_form_work(pictures: Page, house: House) -> None:
    assert '"widths":"40 80"' in run(house, "bash", "-c", pictures.snippet("curl"))
    assert "40 80" in run(house, sys.executable, "-c", pictures.snippet("Python"))


def test_one_image_is_sent_raw(chromium: Browser, house: House) -> None:
    page = Page(chromium, house.url, "thumb")
    page.put("input", str(house.folder / "small one.png"), "input[type=file]")
    assert page.send() == "200 OK"
    assert '"width": 40' in chromium.text("#answer pre")
    assert '"width":40' in run(house, "bash", "-c", page.snippet("curl"))
    assert "'width': 40" in run(house, sys.executable, "-c", page.snippet("Python"))


def test_json_that_is_none_is_not_sent(pictures: Page) -> None:
    pictures.put("marks", "[1, 2", "textarea")
    pictures.browser.click("#try button[type=submit]")
    pictures.browser.until("document.querySelector('[data-field=marks] .wrong').textContent")
    assert pictures.browser.js("answer.dataset.done") is None


def test_a_docstring_stays_text(pictures: Page) -> None:
    assert "<script>window.pwned" in pictures.browser.text(".about")
    assert pictures.browser.js("window.pwned === undefined")
    assert pictures.browser.js("document.querySelectorAll('main script').length") == 0


def test_it_is_readable_on_a_phone(wine: Page) -> None:
    wine.browser._ask("/goog/cdp/execute", {
        "cmd": "Emulation.setDeviceMetricsOverride",
        "params": {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True},
    })  # fmt: skip
    try:
        wine.send()
        assert wine.browser.js("document.documentElement.scrollWidth") <= 360
    finally:
        clear = {"cmd": "Emulation.clearDeviceMetricsOverride", "params": {}}
        wine.browser._ask("/goog/cdp/execute", clear)


def test_every_route_is_listed(chromium: Browser, house: House) -> None:
    chromium.go(f"{house.url}/docs#/routes")
    chromium.until("document.querySelector('h1')?.textContent === 'All routes'")
    shown = chromium.js("[...document.querySelectorAll('.routes code')].map((c) => c.textContent)")
    document = httpx.get(f"{house.url}/openapi.json", trust_env=False).json()
    assert set(shown) == set(document["paths"])


def test_it_says_when_the_gateway_is_gone(chromium: Browser, house: House) -> None:
    """Last: it stops the house."""
    page = Page(chromium, house.url, "wine-cultivar")
    house.close()
    assert page.send() == "no answer"
    chromium.until("document.body.dataset.state === 'failed'")
    assert "does not answer" in chromium.text("#house")
