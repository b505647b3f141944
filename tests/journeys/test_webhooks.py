"""Webhooks in a whole house: registered by the command line, signed, kept through kills."""

import asyncio
import contextlib
import json
import sys

from standardwebhooks import Webhook as Reference

from headrace.testing.house import TestHouse, until
from headrace.testing.load import post

MODELS = """
    import headrace

    class Echo(headrace.Model):
        def predict(self, numbers: list[int]) -> list[int]:
            return [n if n >= 0 else headrace.ItemError("negative", "below 0") for n in numbers]
"""
TOML = """
    [webhooks]
    allow_private = true
    timeout_s = 1.0
    [models.echo]
    class = "models:Echo"
"""


@contextlib.asynccontextmanager
async def receiver(got, status):
    async def talk(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            pairs = [line.split(": ", 1) for line in head.split("\r\n")[1:] if line]
            headers = {name.lower(): value for name, value in pairs}
            got.append((headers, await reader.readexactly(int(headers["content-length"]))))
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status[0])
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    finally:
        server.close()


async def headrace(house, *arguments):
    """The exit status and what was printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headrace", "webhooks", *arguments, "--url", house.url,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await process.communicate()
    return process.returncode, out.decode() + errors.decode()


async def submitted(house, number):
    answer = await post(house.port, "/models/echo/jobs", number)
    assert answer.status == 202, answer
    return json.loads(answer.body)["id"]


async def test_the_ends_of_jobs_are_told_also_when_the_clerk_is_killed(tmp_path):
    got, status = [], [200]
    async with receiver(got, status) as url, TestHouse(MODELS, TOML, tmp_path) as house:
        await house.ready()
        code, printed = await headrace(house, "add", url, "--json")
        assert code == 0, printed
        hook = json.loads(printed)

        code, printed = await headrace(house, "test", hook["id"])
        assert code == 0 and "taken, answered with 200" in printed, printed
        jobs = {await submitted(house, n): n for n in (1, 2, -3)}
        await until(lambda: len(got) == 4, 20, "all are told")
        for headers, body in got[1:]:
            event = Reference(hook["secret"]).verify(body, headers)
            wanted = "failed" if jobs[event["data"]["id"]] < 0 else "succeeded"
            assert event["type"] == f"job.{wanted}" and event["data"]["state"] == wanted
            answer = await house.get(event["data"]["href"])
            assert json.loads(answer.body)["state"] == wanted

        for _ in range(3):
            more = {await submitted(house, n): n for n in range(5)}
            jobs |= more
            [clerk] = house.pids("clerk")
            await house.kill(clerk)
            await until(lambda: house.pids("clerk"), 10, "a new clerk")
        told = lambda: {json.loads(body)["data"].get("id") for _, body in got}  # noqa: E731
        await until(lambda: told() >= set(jobs), 30, "all are told")

        status[0] = 410
        code, printed = await headrace(house, "test", hook["id"])
        assert code == 1 and "answered with 410" in printed
        code, printed = await headrace(house, "list")
        assert code == 0 and " off " in printed and "410" in printed
        code, printed = await headrace(house, "remove", hook["id"])
        assert code == 0, printed
        code, printed = await headrace(house, "show", hook["id"])
        assert code == 1 and "webhook-not-found" in printed
