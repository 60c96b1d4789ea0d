"""Kling's new standard: the model is in the path, and tasks are asked for twenty at a time."""

from collections.abc import Sequence
from urllib.parse import quote

from bot.errors import Cause, ProviderUnsure
from bot.jobs.machine import Absent, Accepted, Broke, Ready, StillRendering
from bot.providers.base import Capabilities, ClipRequest
from bot.providers.kling.answers import at, detail, raise_for_error, task_id
from bot.providers.kling.api import THREE, THREE_TURBO, TWO_FIVE_TURBO, TWO_SIX, KlingApi, Order, in_base64

MOST_IDS = 20  # in one query; 21 are refused


class Kling(KlingApi):
    """The adapter of Kling's new standard."""

    @property
    def variants(self) -> dict[str, Capabilities]:
        """The models this route reaches, by Kling's names; all make clips from words alone as well."""
        return {
            "kling-3.0": THREE,
            "kling-3.0-turbo": THREE_TURBO,
            "kling-2.6": TWO_SIX,
            "kling-2.5-turbo": TWO_FIVE_TURBO,
        }

    @property
    def most_checks(self) -> int:
        """How many tasks `check_many` takes at once."""
        return MOST_IDS

    async def check_many(self, tasks: Sequence[str]) -> dict[str, StillRendering | Ready | Broke]:
        """As `check`, by task; those that Kling leaves out are left out here: absent is not failed."""
        outcomes: dict[str, StillRendering | Ready | Broke] = {}
        for found in await self._tasks("task_ids", tasks):
            task, outcome = task_id(found), self._outcome(found)
            if task is not None and outcome is not None:
                outcomes[task] = outcome
        return outcomes

    async def find(self, reference: str) -> Accepted | Absent:
        """The task under our reference. Kling refuses a second create under it, so Absent is safe."""
        found = await self._tasks("external_task_ids", [reference])
        if not found:
            return Absent()
        task = task_id(next((task for task in found if at(task, "external_id") == reference), None))
        if task is None:
            raise ProviderUnsure(Cause.UNREADABLE, f"no task under {reference!r} in the answer")
        return Accepted(task)

    async def _look(self, task: str) -> object:
        found = await self._tasks("task_ids", [task])
        return next((each for each in found if task_id(each) == task), None)

    async def _tasks(self, key: str, ids: Sequence[str]) -> list[object]:
        answer = await self._call("GET", f"/tasks?{key}={','.join(quote(each, safe='') for each in ids)}")
        raise_for_error(answer)
        data = at(answer.body, "data")
        if not isinstance(data, list):
            raise ProviderUnsure(Cause.UNREADABLE, detail(answer, "no tasks"))
        return data

    def _order(self, request: ClipRequest) -> Order:
        """Text to Video and Image to Video of each model: contents or words, `settings`, `options`."""
        settings: dict[str, object] = {"duration": request.seconds}
        if request.quality:
            settings["resolution"] = request.quality
        if request.variant == "kling-3.0":
            settings["multi_shot"] = False  # else Kling may cut one clip into several shots
        if request.sound and request.variant != "kling-3.0-turbo":
            settings["audio"] = "native"
        options: dict[str, object] = {"external_task_id": request.reference}
        if request.callback:
            options["callback_url"] = request.callback
        rest = {"settings": settings, "options": options}
        if not request.picture:
            if request.ratio:
                settings["aspect_ratio"] = request.ratio
            return Order(path=f"/text-to-video/{request.variant}", body={"prompt": request.prompt, **rest})
        contents = [{"type": "prompt", "text": request.prompt}] if request.prompt else []
        contents.append({"type": "first_frame", "url": in_base64(request.picture)})
        if request.end_picture:
            contents.append({"type": "last_frame", "url": in_base64(request.end_picture)})
        return Order(path=f"/image-to-video/{request.variant}", body={"contents": contents, **rest})
