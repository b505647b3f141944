"""Calling a house from Python, with a deadline, retries within a budget, and typed results.

with headrace.Client("http://127.0.0.1:8100", deadline_s=2) as client:
    answer = client.predict("face-match", {"left": Path("a.jpg"), "right": Path("b.jpg")})
    answer.result, answer.timings.total_ms
    job = client.submit("ocr", Path("passport.jpg"))  # stored: it outlives this process
    job.result(timeout_s=60)

client/  write  input -> body            retry   pure: retry or not, and after how long
         asks   method, path, reader     attempt one call as steps: send, wait, send ...
         read   reply -> answer, refusal ended   a stored job as steps, until it has ended
         handle a stored job in hand     face    Client and AsyncClient: two thin senders
         scale, rollout, promotion       asks of the control API
         control                         Control and AsyncControl: two senders of those
"""

from headrace.client.answers import (
    Answer,
    JobView,
    Loss,
    ModelStatus,
    Problem,
    Readiness,
    ServedModel,
    Status,
    Timings,
)
from headrace.client.control import AsyncControl, Control
from headrace.client.errors import (
    AnswerUnreadable,
    CallError,
    CallFailed,
    CallRefused,
    DeadlinePassed,
)
from headrace.client.face import DEFAULT_URL, AsyncClient, Client
from headrace.client.handle import AsyncJob, Job
from headrace.client.retry import RetryBudget
from headrace.errors import FieldError

__all__ = [
    "DEFAULT_URL",
    "Answer",
    "AnswerUnreadable",
    "AsyncClient",
    "AsyncControl",
    "AsyncJob",
    "CallError",
    "CallFailed",
    "CallRefused",
    "Client",
    "Control",
    "DeadlinePassed",
    "FieldError",
    "Job",
    "JobView",
    "Loss",
    "ModelStatus",
    "Problem",
    "Readiness",
    "RetryBudget",
    "ServedModel",
    "Status",
    "Timings",
]
