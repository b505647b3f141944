"""Questions of many callers, asked together: while one is under way the next ones gather. With
little load nobody waits; under load a transaction carries fifty."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Together(Generic[Question, Answer]):
    def __init__(
        self, ask_all: Callable[[list[Question]], Awaitable[list[Answer]]], most: int
    ) -> None:
        """`ask_all`: an answer for each of up to `most` questions, in their order. What it raises,
        all that asked get."""
        self._ask_all, self._most = ask_all, most
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._until_none_waits())
        return await answer

    async def _until_none_waits(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            try:
                answers = await self._ask_all([question for question, _ in batch])
            except Exception as error:
                for _, future in batch:
                    if not future.done():  # else who asked is gone
                        future.set_exception(error)
            else:
                for (_, future), answer in zip(batch, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
        self._asking = None

    async def flush(self) -> None:
        """Until what was asked is answered."""
        if self._asking:
            await asyncio.wait([self._asking])
