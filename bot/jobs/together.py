"""What many ask for at the same moment is done in one go: one transaction costs little more than one row of it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class _Surely(asyncio.Future[Answer]):
    """An answer that a cancelled caller still waits for, and is cancelled then; cancelled once more, it waits no longer."""

    _cancelled_once = False

    def cancel(self, msg: Any | None = None) -> bool:
        if self._cancelled_once:
            return super().cancel(msg)
        self._cancelled_once = True
        return False


class Together(Generic[Item, Answer]):
    """Gathers items while `work` is busy, and gives it all that wait, at most `most`, the next time.

    `work` takes items in the order they were asked and returns as many answers; one that is an exception is
    raised to its caller alone. Nobody gets an answer before `work` has returned. One `work` at a time.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]], *, most: int
    ) -> None:
        self._work = work
        self._most = most
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def ask(self, item: Item, *, surely: bool = False) -> Answer:
        """The answer for this item. A caller that is cancelled before its turn asked nothing; one that asks `surely` is
        cancelled only after its turn."""
        answer: asyncio.Future[Answer] = _Surely() if surely else asyncio.Future()
        self._waiting.append((item, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), context=Context())  # nobody's log fields
        return await answer

    async def close(self) -> None:
        """Give up what is under way; whoever still waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for _, answer in self._waiting:
            asyncio.Future.cancel(answer)
        self._waiting.clear()

    async def _run(self) -> None:
        some: list[tuple[Item, asyncio.Future[Answer]]] = []
        try:
            while self._waiting:
                some = []
                while self._waiting and len(some) < self._most:
                    item, answer = self._waiting.popleft()
                    if not answer.done() or isinstance(answer, _Surely):
                        some.append((item, answer))
                if some:
                    await self._answer(some)
        finally:
            for _, answer in some:  # not done only when this task was cancelled
                asyncio.Future.cancel(answer)

    async def _answer(self, some: Sequence[tuple[Item, asyncio.Future[Answer]]]) -> None:
        answers: Sequence[Answer | Exception]
        try:
            answers = await self._work([item for item, _ in some])
        except Exception as error:  # noqa: BLE001 - it is raised to all who asked
            answers = [error] * len(some)
        for (_, waiting), answer in zip(some, answers, strict=True):
            if waiting.done():
                continue
            if isinstance(answer, Exception):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)
