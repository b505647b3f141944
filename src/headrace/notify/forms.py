"""A message in the words of who gets it. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from headrace.notify.pile import Message

MOST_TEXT = 2_900  # Slack refuses sections above 3,000 characters
_ESCAPED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})  # or <!channel> calls everybody
_HALF = re.compile(r"&[a-z]*$")
_SIGNS = {
    "began": ":rotating_light: ", "rolled-back": ":rotating_light: ",
    "ended": ":white_check_mark: ",
}  # fmt: skip
_ROOMS = {"promotion": "deploy", "rollout": "deploy", "retraining": "train"}  # others: scale


def slack(message: Message, house: str) -> bytes:
    """The body for a Slack incoming webhook, or what takes the same, as Mattermost."""
    notice = message.notice
    text = _cut(sentence(message).translate(_ESCAPED))
    sign = _SIGNS.get(notice.state, "") if notice.urgent else ""
    blocks = [_section(f"{sign}*{notice.model.translate(_ESCAPED)}* {text}")]
    beside = [f"house {house}", *filter(None, [left_out(message)])]
    blocks.append({
        "type": "context",
        "elements": [{"type": "mrkdwn", "text": one.translate(_ESCAPED)} for one in beside],
    })  # fmt: skip
    return msgspec.json.encode({"text": f"{notice.model}: {text}", "blocks": blocks})


def plain(message: Message, house: str) -> bytes:
    """The body for a program."""
    notice = message.notice
    parts = [
        _ROOMS.get(notice.kind, "scale"),
        notice.kind,
        *([notice.state] if notice.state else []),
    ]
    data = {
        "house": house, "model": notice.model, "text": notice.text, "name": notice.name,
        "state": notice.state, "times": message.times, "left_out": message.left_out,
        "details": notice.data,
    }  # fmt: skip
    return msgspec.json.encode({"type": ".".join(parts), "timestamp": notice.at, "data": data})


def sentence(message: Message) -> str:
    notice = message.notice
    said = f"{notice.kind} {notice.state}: " if notice.urgent else ""
    again = f" ({message.times} times)" if message.times > 1 else ""
    return f"{said}{notice.text}{again}"


def left_out(message: Message) -> str:
    """ "not told one by one: 12 decisions", or nothing."""
    counts = [f"{n} {kind}{'s' if n != 1 else ''}" for kind, n in message.left_out.items() if n]
    return f"not told one by one: {', '.join(counts)}" if counts else ""


def _cut(escaped: str) -> str:
    return escaped if len(escaped) <= MOST_TEXT else _HALF.sub("", escaped[:MOST_TEXT]) + " ..."


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}
