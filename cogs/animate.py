"""`/animate` and the menu *Animate this picture*: a prompt and a picture become a clip.

The choices come from the configured models.
"""

import asyncio
import inspect
from dataclasses import dataclass
from typing import Any

import discord
from discord import app_commands
from discord.ext import commands

from bot.client import AnimaticBot
from bot.errors import Refusal
from bot.jobs.announcing import Pictures
from bot.jobs.desk import Ask, Plan, picture_rules
from bot.jobs.models import Menu
from bot.media.picture import refuse_by_size
from bot.ui import answer, catalogue, forms
from bot.ui.controls import is_age_restricted, who
from bot.ui.sources import Source, attached, fetch, forwarded_from, pictures_of

PICTURES_AT_ONCE = 4  # requests whose pictures are in memory at the same time
MOST_PICKED = 1000  # menus that were opened and not sent; a person looks at one at a time
FORM = "menu:"
PICTURED = Ask(prompt="", has_picture=True)  # what a form begins with


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """The message on which the menu was opened: its pictures, and whose they are."""

    pictures: list[Source]
    owner_id: int


class Animate(commands.Cog):
    def __init__(self, bot: AnimaticBot) -> None:
        self.bot = bot
        self.reading = asyncio.Semaphore(PICTURES_AT_ONCE)
        self.command = animate_command(bot.desk.menu, self.animate)
        self.menu = app_commands.guild_only(
            app_commands.ContextMenu(name=catalogue.ANIMATE_MENU, callback=self.pick)
        )
        # In memory only: without a privileged intent nobody shows us the message once more.
        self.picked: dict[str, Picked] = {}

    async def cog_load(self) -> None:
        self.bot.tree.add_command(self.command)
        self.bot.tree.add_command(self.menu)

    async def cog_unload(self) -> None:
        self.bot.tree.remove_command(self.command.name)
        self.bot.tree.remove_command(self.menu.name, type=self.menu.type)

    async def animate(
        self,
        interaction: discord.Interaction[AnimaticBot],
        ask: Ask,
        picture: discord.Attachment | None,
        end_picture: discord.Attachment | None,
    ) -> None:
        answer.require_permissions(interaction)
        settings = await self.bot.desk.settings(interaction.guild_id)
        plan = self.bot.desk.plan(ask, settings)
        first = attached(picture) if picture else None
        last = attached(end_picture) if end_picture else None
        for source, name in ((first, catalogue.PICTURE), (last, catalogue.END_PICTURE)):
            if source is not None:
                refuse_by_size(source.size or 0, name=name)
        await answer.acknowledge(interaction)
        await self._make(interaction, plan, first, last)

    async def pick(self, interaction: discord.Interaction[AnimaticBot], message: discord.Message) -> None:
        answer.require_permissions(interaction)
        pictures = pictures_of(message)
        if not pictures:
            raise answer.nothing_to_animate()
        desk = self.bot.desk
        await desk.admit(who(interaction))
        source = self.bot.get_channel(forwarded_from(message) or 0)
        if is_age_restricted(source) and not who(interaction).age_restricted:
            raise answer.stays_age_restricted()
        owner_id = await desk.picture_owner(message.id, message.author.id)
        await desk.require_consent(who(interaction), owner_id)
        custom_id = f"{FORM}{interaction.id}"
        settings = await desk.settings(interaction.guild_id)
        ask = desk.filled(PICTURED, settings)
        form = forms.form(custom_id, "animate", ask, desk.in_reach(settings), pictures=pictures)
        self.picked[custom_id] = Picked(pictures=pictures, owner_id=owner_id)
        while len(self.picked) > MOST_PICKED:
            del self.picked[next(iter(self.picked))]
        await interaction.response.send_modal(form)

    @commands.Cog.listener()
    async def on_interaction(self, interaction: discord.Interaction[AnimaticBot]) -> None:
        custom_id = forms.custom_id_of(interaction) or ""
        if custom_id.startswith(FORM):
            try:
                await self._picked(interaction, custom_id)
            except Exception as error:  # noqa: BLE001 - every error is somebody's sentence
                await answer.error(interaction, error)

    async def _picked(self, interaction: discord.Interaction[AnimaticBot], custom_id: str) -> None:
        await answer.acknowledge(interaction)
        typed = forms.answers_in(interaction)
        try:
            answer.require_permissions(interaction)
            picked = self.picked.pop(custom_id, None)
            if picked is None:
                raise answer.menu_forgotten()
            desk = self.bot.desk
            settings = await desk.settings(interaction.guild_id)
            ask = forms.read(typed, desk.filled(PICTURED, settings), desk.menu_of(settings))
            plan = desk.plan(ask, settings)
            picture = picked.pictures[int(typed.get("picture", 0))]
            await self._make(interaction, plan, picture, None, picture_by=picked.owner_id)
        except Refusal as refusal:
            raise forms.refused(refusal, typed.get("prompt", "")) from None

    async def _make(
        self,
        interaction: discord.Interaction[AnimaticBot],
        plan: Plan,
        first: Source | None,
        last: Source | None,
        *,
        picture_by: int | None = None,
    ) -> None:
        """Fetch the pictures, queue the clip, and say so: the one way for commands and menus."""
        desk, http = self.bot.desk, self.bot.http
        await desk.admit(who(interaction))
        rules = picture_rules(plan, who(interaction))
        async with self.reading:
            pictures = Pictures(
                first=await fetch(http, first, rules, name=catalogue.PICTURE) if first else None,
                last=await fetch(http, last, rules, name=catalogue.END_PICTURE) if last else None,
            )
        job = await desk.request(who(interaction), plan, pictures, picture_by=picture_by)
        notes = [note for picture in (pictures.first, pictures.last) if picture for note in picture.notes]
        await interaction.followup.send(answer.receipt(job, desk.menu, tuple(notes)), ephemeral=True)

    @commands.Cog.listener()
    async def on_raw_message_delete(self, payload: discord.RawMessageDeleteEvent) -> None:
        await self.bot.desk.card_deleted(payload.message_id)

    @commands.Cog.listener()
    async def on_raw_bulk_message_delete(self, payload: discord.RawBulkMessageDeleteEvent) -> None:
        for message_id in payload.message_ids:
            await self.bot.desk.card_deleted(message_id)


def animate_command(menu: Menu, submit: Any) -> app_commands.Command[Any, ..., None]:
    """The slash command with the choices of this menu. `submit(interaction, ask, picture, end_picture)`."""
    models = list(menu.models.values())
    default = menu.models[menu.default]

    descriptions = catalogue.animate_options(default.label)
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
        app_commands.Command(name="animate", description=catalogue.COMMANDS["animate"], callback=animate)
    )


def _choices(offers: Any) -> list[app_commands.Choice[Any]]:
    """All that any model offers, each once, in order; an option has at most 25 choices."""
    values = dict.fromkeys(value for offer in offers for value in offer)
    ordered = sorted(values) if all(isinstance(value, int) for value in values) else list(values)
    return [app_commands.Choice(name=catalogue.choice(value), value=value) for value in ordered][:25]


async def setup(bot: AnimaticBot) -> None:
    await bot.add_cog(Animate(bot))
