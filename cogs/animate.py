"""`/animate`: a prompt and a picture become a clip. Its choices come from the configured models."""

import asyncio
import inspect
from dataclasses import replace
from typing import Any

import discord
from discord import app_commands
from discord.ext import commands

from bot.client import AnimaticBot
from bot.errors import Refusal
from bot.jobs.announcing import Pictures
from bot.jobs.desk import FREE, Ask, Plan
from bot.jobs.models import Menu
from bot.media.picture import normalise, refuse_by_size
from bot.providers.base import Picture
from bot.ui import answer
from bot.ui.controls import who

PICTURES_AT_ONCE = 4  # requests whose pictures are in memory at the same time
ROOM = 64 * 1024  # what a request to Discord needs besides the picture, in bytes


class Animate(commands.Cog):
    def __init__(self, bot: AnimaticBot) -> None:
        self.bot = bot
        self.reading = asyncio.Semaphore(PICTURES_AT_ONCE)
        self.command = animate_command(bot.desk.menu, self.animate)

    async def cog_load(self) -> None:
        self.bot.tree.add_command(self.command)

    async def cog_unload(self) -> None:
        self.bot.tree.remove_command(self.command.name)

    async def animate(
        self,
        interaction: discord.Interaction[AnimaticBot],
        ask: Ask,
        picture: discord.Attachment | None,
        end_picture: discord.Attachment | None,
    ) -> None:
        answer.require_permissions(interaction)
        plan = self.bot.desk.plan(ask)
        if picture is not None:
            refuse_by_size(picture.size)
        if end_picture is not None:
            refuse_by_size(end_picture.size, name="The end picture")
        await interaction.response.defer(ephemeral=True, thinking=True)
        await self.bot.desk.admit(who(interaction))
        async with self.reading:
            pictures = Pictures(
                first=await _fetch(interaction, plan, picture, "The picture"),
                last=await _fetch(interaction, plan, end_picture, "The end picture"),
            )
        job = await self.bot.desk.request(who(interaction), plan, pictures)
        notes = (
            *(pictures.first.notes if pictures.first else ()),
            *(pictures.last.notes if pictures.last else ()),
        )
        await interaction.followup.send(answer.receipt(job, self.bot.desk.menu, notes), ephemeral=True)

    @commands.Cog.listener()
    async def on_raw_message_delete(self, payload: discord.RawMessageDeleteEvent) -> None:
        await self.bot.desk.card_deleted(payload.message_id)

    @commands.Cog.listener()
    async def on_raw_bulk_message_delete(self, payload: discord.RawBulkMessageDeleteEvent) -> None:
        for message_id in payload.message_ids:
            await self.bot.desk.card_deleted(message_id)


async def _fetch(
    interaction: discord.Interaction[AnimaticBot],
    plan: Plan,
    attachment: discord.Attachment | None,
    name: str,
) -> Picture | None:
    """The attachment, made to fit the model and this server's upload limit: the card carries it."""
    if attachment is None:
        return None
    rules = plan.model.can.picture
    rules = replace(rules, max_bytes=min(rules.max_bytes, interaction.filesize_limit - ROOM))
    try:
        data = await attachment.read()
    except discord.HTTPException:
        raise Refusal(f"{name} could not be fetched from Discord. Please attach it again. {FREE}") from None
    return await normalise(data, rules, name=name)


def animate_command(menu: Menu, submit: Any) -> app_commands.Command[Any, ..., None]:
    """The slash command with the choices of this menu. `submit(interaction, ask, picture, end_picture)`."""
    models = list(menu.models.values())
    default = menu.models[menu.default]

    descriptions = {
        "prompt": "What should happen in the clip, for example: camera slowly pulls out",
        "picture": "The picture to bring to life: PNG, JPEG, WebP, GIF or HEIC",
        "model": f"Which model makes it; {default.label} when left out",
        "seconds": "How long the clip is",
        "quality": "How fine the picture is; finer costs more",
        "end_picture": "The picture that the clip ends on",
        "negative": "What should not be in the clip",
        "strength": "How closely to follow the prompt",
        "ratio": "The shape of the clip, where it is not the picture's",
        "camera": "How the camera moves",
        "loop": "Whether the clip ends as it begins",
        "sound": "Whether the clip has sound; it may cost more",
    }
    choices = {
        "model": [app_commands.Choice(name=model.label, value=model.name) for model in models][:25],
        "seconds": _choices(model.can.seconds for model in models),
        "quality": _choices(model.can.qualities for model in models),
        "ratio": _choices((*model.can.ratios, *model.can.shapes) for model in models),
        "camera": _choices(model.can.cameras for model in models),
    }
    useless = {name for name, offered in choices.items() if not offered}
    useless |= {"end_picture"} if not any(model.can.end_picture for model in models) else set()
    useless |= {"negative"} if not any(model.can.negative_prompt for model in models) else set()
    useless |= {"loop"} if not any(model.can.loop for model in models) else set()
    useless |= {"sound"} if not any(model.can.sound for model in models) else set()
    useless |= {"strength"} if not any(model.can.strength for model in models) else set()

    async def animate(
        interaction: discord.Interaction[AnimaticBot],
        prompt: str,
        picture: discord.Attachment | None = None,
        model: str | None = None,
        seconds: int | None = None,
        quality: str | None = None,
        end_picture: discord.Attachment | None = None,
        negative: str | None = None,
        strength: app_commands.Range[float, 0.0, 1.0] | None = None,
        ratio: str | None = None,
        camera: str | None = None,
        loop: bool = False,
        sound: bool = False,
    ) -> None:
        ask = Ask(
            prompt=prompt,
            model=model,
            seconds=seconds,
            quality=quality,
            ratio=ratio,
            negative_prompt=negative,
            strength=strength,
            camera=camera,
            loop=loop,
            sound=sound,
            has_picture=picture is not None,
            has_end_picture=end_picture is not None,
        )
        await submit(interaction, ask, picture, end_picture)

    # discord.py reads the options from the signature: what no configured model can do is not offered.
    signature = inspect.signature(animate)
    offered = [option for name, option in signature.parameters.items() if name not in useless]
    animate.__signature__ = signature.replace(parameters=offered)  # type: ignore[attr-defined]  # as PEP 362 says
    app_commands.describe(**{name: text for name, text in descriptions.items() if name not in useless})(
        animate
    )
    app_commands.choices(**{name: offer for name, offer in choices.items() if name not in useless})(animate)
    return app_commands.guild_only(
        app_commands.Command(
            name="animate", description="Bring a picture to life as a short video", callback=animate
        )
    )


def _choices(offers: Any) -> list[app_commands.Choice[Any]]:
    """All that any model offers, each once, in order; an option has at most 25 choices."""
    values = dict.fromkeys(value for offer in offers for value in offer)
    ordered = sorted(values) if all(isinstance(value, int) for value in values) else list(values)
    return [
        app_commands.Choice(name=f"{value} seconds" if isinstance(value, int) else value, value=value)
        for value in ordered
    ][:25]


async def setup(bot: AnimaticBot) -> None:
    await bot.add_cog(Animate(bot))
