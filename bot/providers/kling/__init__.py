"""The route `kling`: Kling's own API, documented at kling.ai/document-api.

Kling has two standards side by side, and one adapter for each. Under both our reference is Kling's
`external_task_id`, which it takes once in an account: a task can be looked up by it, and a second create
under it is refused.
"""

import aiohttp

from bot.providers.kling.api import KlingApi
from bot.providers.kling.legacy import KlingLegacy
from bot.providers.kling.new import Kling
from bot.providers.kling.settings import KlingSettings

__all__ = ["Kling", "KlingApi", "KlingLegacy", "KlingSettings", "open_kling"]


def open_kling(
    *, http: aiohttp.ClientSession, settings: KlingSettings, allow_private_addresses: bool = False
) -> KlingApi:
    """The adapter of the standard that the settings name."""
    kind = Kling if settings.standard == "new" else KlingLegacy
    return kind(http=http, settings=settings, allow_private_addresses=allow_private_addresses)
