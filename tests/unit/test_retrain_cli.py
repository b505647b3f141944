"""`headrace retrain show`: what a model waits for, and what came of the last trainings."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli.retrain import retrain
from headrace.notify.forms import plain
from headrace.notify.notice import retraining
from headrace.notify.pile import Message
from headrace.retraining import Training
from headrace.settings import load
from headrace.store.engine import Database
from headrace.store.migrate import migrate
from headrace.store.retraining import Trainings

TOML = """
[models.wine]
class = "models:Wine"

[models.wine.retrain]
pipeline = "pipeline:Wines"
cron = "0 3 * * *"
alarms = ["drift"]
then = "promote"

[models.other]
class = "models:Other"
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "headrace.toml").write_text(TOML)
    return str(tmp_path / "headrace.toml")


def shown(file: str, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(retrain, ["show", *arguments, "-f", file])
    return done.exit_code, done.output


async def trained(file: str) -> None:
    database = Database(load(file, environment={}).database_url())
    await migrate(database)
    for n in (1, 2):
        asked = Training(model="wine", key=f"k{n}", at=1e9 + n, reason="alarm [drift]", run=f"r{n}")
        await Trainings(database).begin(asked)
    await Trainings(database).end(
        Training(
            model="wine",
            key="k1",
            at=1e9,
            reason="",
            run="r1",
            state="out",
            ended=1e9 + 60,
            outcome="it stays out: accuracy is 0.6",
        )
    )
    await database.close()


def test_it_says_what_a_model_waits_for_and_what_came_of_the_last(file):
    status, said = shown(file)
    assert status == 0 and "no alarm is on, and the next time is" in said and "03:00 UTC" in said
    assert "at '0 3 * * *' UTC; on alarm drift" in said
    asyncio.run(trained(file))
    status, said = shown(file, "wine")
    assert status == 0 and "alarm [drift]" in said and "2001-09-09" in said
    assert "it stays out" in said
    status, said = shown(file, "--json", "--last", "1")
    found = json.loads(said)["wine"]
    assert [each["run"] for each in found["trainings"]] == ["r2"] and found["next"]["reason"]


def test_a_model_without_a_policy_is_told_with_those_that_have_one(file):
    status, said = shown(file, "other")
    assert status == 2 and "model other: expected one of wine" in said


def test_programs_are_told_by_a_type_of_its_own():
    told = retraining("wine", "out", "it stays out: accuracy is 0.6", 1e9, run="r1")
    body = json.loads(plain(Message(told), "shop"))
    assert body["type"] == "train.retraining.out"
    assert (body["data"]["name"], body["data"]["model"]) == ("r1", "wine")
