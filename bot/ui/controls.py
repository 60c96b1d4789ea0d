"""The buttons on cards and posts, and the menus and modals that they open.

A press means: load the job, ask the desk, answer privately. A custom_id is `job:<id>:<verb>[:…]`, so
everything works after any restart and on any age of message.
"""

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import discord
from discord import ui

from bot.errors import Refusal
from bot.jobs.desk import Ask, Who, asked, possible
from bot.jobs.machine import Job
from bot.ui import answer, forms

if TYPE_CHECKING:
    from bot.client import AnimaticBot

LABELS = {
    "cancel": ("Cancel", None, discord.ButtonStyle.secondary),
    "again": ("Again", "🔁", discord.ButtonStyle.primary),
    "remix": ("Remix", "✏️", discord.ButtonStyle.secondary),
    "model": ("Other model", "🎛️", discord.ButtonStyle.secondary),
    "continue": ("Continue", "⏩", discord.ButtonStyle.secondary),
    "delete": ("Delete", "🗑️", discord.ButtonStyle.secondary),
    "erase": ("Delete for everybody", None, discord.ButtonStyle.danger),
    "sure": ("Start it", "🔁", discord.ButtonStyle.primary),
    "retry": ("Try again (may cost twice)", None, discord.ButtonStyle.danger),
    "drop": ("Let it go", None, discord.ButtonStyle.secondary),
    "post": ("Post it here", None, discord.ButtonStyle.primary),
}
ALLOW = "Allow for a day"
ALLOWED_SECONDS = 3600.0
CHOOSE_MODEL = "Choose a model"
FORM = re.compile(r"job:(?P<id>[a-z0-9]{1,20}):(?P<kind>remix|continue)")


class JobButton(
    ui.DynamicItem[ui.Button[Any]],
    template=r"job:(?P<id>[a-z0-9]{1,20}):(?P<verb>[a-z]+)(?P<more>(?::[0-9]{1,20}){0,2})",
):
    """One of the buttons above, for one job; some know a number more, such as whom they are for."""

    def __init__(self, job_id: str, verb: str, *more: int) -> None:
        label, emoji, style = LABELS.get(verb, (verb, None, discord.ButtonStyle.secondary))
        custom_id = ":".join(["job", job_id, verb, *map(str, more)])
        super().__init__(ui.Button(label=label, emoji=emoji, style=style, custom_id=custom_id))
        self.job_id = job_id
        self.verb = verb
        self.more = more

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str]
    ) -> Self:
        # An unknown verb is refused by the callback: what is raised here, discord.py only logs.
        return cls(match["id"], match["verb"], *map(int, match["more"].split(":")[1:]))

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        # discord.py only logs what a DynamicItem's callback raises, so this door answers for itself.
        try:
            await getattr(self, f"_{self.verb}" if self.verb in LABELS else "_unknown")(interaction)
        except Exception as error:  # noqa: BLE001 - every error is somebody's sentence
            await answer.error(interaction, error)

    async def _cancel(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        await answer.acknowledge(interaction)
        job = await interaction.client.desk.cancel(who(interaction), self.job_id)
        await interaction.followup.send(answer.cancelled(job), ephemeral=True)
        await _note(interaction, job, "cancelled")

    async def _again(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        answer.require_permissions(interaction)
        await answer.acknowledge(interaction)
        desk = interaction.client.desk
        job = await desk.again(who(interaction), await desk.job(self.job_id))
        await interaction.followup.send(answer.receipt(job, desk.menu), ephemeral=True)

    async def _remix(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        await self._open_form(interaction, "remix")

    async def _continue(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        await self._open_form(interaction, "continue")

    async def _open_form(self, interaction: "discord.Interaction[AnimaticBot]", kind: str) -> None:
        answer.require_permissions(interaction)
        desk = interaction.client.desk
        job = await desk.job(self.job_id)
        await desk.admit(who(interaction))
        await desk.require_consent_for(who(interaction), job)
        menu = desk.in_reach(await desk.settings(interaction.guild_id))
        form = forms.form(f"job:{self.job_id}:{kind}", kind, form_ask(job, kind), menu)
        await interaction.response.send_modal(form)

    async def _model(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        answer.require_permissions(interaction)
        desk = interaction.client.desk
        job = await desk.job(self.job_id)
        await desk.admit(who(interaction))
        await desk.require_consent_for(who(interaction), job)
        menu = desk.in_reach(await desk.settings(interaction.guild_id))
        plans = [plan for plan in possible(asked(job), menu) if plan.model.name != job.model]
        if not plans:
            raise answer.no_other_model(job, desk.menu)
        view = ui.View(timeout=None).add_item(ModelSelect(job.id, forms.model_options(plans, desk.menu)))
        text = answer.other_models(job, desk.menu)
        await interaction.response.send_message(text, view=view, ephemeral=True)

    async def _retry(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        await answer.acknowledge(interaction)
        job = await interaction.client.desk.try_again(who(interaction), self.job_id)
        await interaction.followup.send(answer.TRYING_AGAIN, ephemeral=True)
        await _note(interaction, job, "tried once more")

    async def _drop(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        await answer.acknowledge(interaction)
        job = await interaction.client.desk.let_go(who(interaction), self.job_id)
        await interaction.followup.send(answer.let_go(job), ephemeral=True)
        await _note(interaction, job, "let go")

    async def _post(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        answer.require_permissions(interaction)
        await answer.acknowledge(interaction)
        job = await interaction.client.desk.redeliver(who(interaction), self.job_id)
        await interaction.followup.send(answer.redelivery(job), ephemeral=True)
        await _note(interaction, job, "posted once more")

    async def _delete(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        await interaction.client.desk.may_delete(who(interaction), self.job_id)
        assert interaction.message is not None
        view = ui.View(timeout=None).add_item(JobButton(self.job_id, "erase", interaction.message.id))
        await interaction.response.send_message(answer.asked_to_delete(), view=view, ephemeral=True)

    async def _erase(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        await interaction.response.defer()
        job = await interaction.client.desk.delete_post(who(interaction), self.job_id, self.more[0])
        await interaction.edit_original_response(content=answer.deleted(job), view=None)
        await _note(interaction, job, "deleted the post of")

    async def _sure(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        user_id, expires = self.more
        if interaction.user.id != user_id:
            raise answer.not_yours_to_confirm(user_id)
        answer.require_permissions(interaction)
        await answer.acknowledge(interaction)
        assert interaction.message is not None
        desk = interaction.client.desk
        try:
            if desk.now().timestamp() > expires:
                raise answer.confirmed_too_late()
            job = await desk.again(who(interaction), await desk.job(self.job_id))
        finally:
            await interaction.message.delete(delay=0)  # which ignores that somebody was faster
        await interaction.followup.send(answer.receipt(job, desk.menu), ephemeral=True)

    async def _unknown(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        raise answer.newer_button()


class ModelSelect(ui.DynamicItem[ui.Select[Any]], template=r"job:(?P<id>[a-z0-9]{1,20}):by\.model"):
    """Which other model is to make a clip; shown to one person only."""

    def __init__(self, job_id: str, options: list[discord.SelectOption]) -> None:
        super().__init__(
            ui.Select(placeholder=CHOOSE_MODEL, custom_id=f"job:{job_id}:by.model", options=options)
        )
        self.job_id = job_id

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str]
    ) -> Self:
        assert isinstance(item, ui.Select)
        return cls(match["id"], item.options)

    async def callback(self, interaction: "discord.Interaction[Any]") -> None:
        try:
            answer.require_permissions(interaction)
            await interaction.response.defer()
            desk = interaction.client.desk
            job = await desk.by_model(who(interaction), await desk.job(self.job_id), self.item.values[0])
            await interaction.edit_original_response(content=answer.receipt(job, desk.menu), view=None)
        except Exception as error:  # noqa: BLE001 - as above
            await answer.error(interaction, error)


class ConsentButton(
    ui.DynamicItem[ui.Button[Any]],
    template=r"consent:(?P<owner>[0-9]{1,20}):(?P<asker>[0-9]{1,20}):(?P<expires>[0-9]{1,12})",
):
    """With it the owner of a picture lets somebody use their pictures in this server."""

    def __init__(self, owner_id: int, asker_id: int, expires: int) -> None:
        custom_id = f"consent:{owner_id}:{asker_id}:{expires}"
        super().__init__(ui.Button(label=ALLOW, custom_id=custom_id))
        self.owner_id, self.asker_id, self.expires = owner_id, asker_id, expires

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str]
    ) -> Self:
        return cls(int(match["owner"]), int(match["asker"]), int(match["expires"]))

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        try:
            await self._allow(interaction)
        except Exception as error:  # noqa: BLE001 - as above
            await answer.error(interaction, error)

    async def _allow(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        desk = interaction.client.desk
        if interaction.user.id != self.owner_id:
            raise answer.not_yours_to_allow(self.owner_id)
        if desk.now().timestamp() > self.expires:
            raise answer.allowed_too_late()
        await desk.allow_pictures(who(interaction), self.asker_id)
        await interaction.response.send_message(
            answer.owner_allows(self.owner_id, self.asker_id),
            allowed_mentions=discord.AllowedMentions(users=[discord.Object(self.asker_id)]),
            delete_after=ALLOWED_SECONDS,
        )
        assert interaction.message is not None
        await interaction.message.delete(delay=0)  # which ignores that it is gone already


async def on_form(interaction: "discord.Interaction[AnimaticBot]") -> None:
    """Answer a submitted modal of *Remix* or *Continue*; others are not ours."""
    found = FORM.fullmatch(forms.custom_id_of(interaction) or "")
    if found is None:
        return
    try:
        await answer.acknowledge(interaction)
        desk = interaction.client.desk
        typed = forms.answers_in(interaction)
        try:
            answer.require_permissions(interaction)
            parent = await desk.job(found["id"])
            ask = forms.read(typed, form_ask(parent, found["kind"]), desk.menu)
            derive = desk.remix if found["kind"] == "remix" else desk.go_on
            job = await derive(who(interaction), parent, ask)
        except Refusal as refusal:
            raise forms.refused(refusal, typed.get("prompt", "")) from None
        await interaction.followup.send(answer.receipt(job, desk.menu), ephemeral=True)
    except Exception as error:  # noqa: BLE001 - as above
        await answer.error(interaction, error)


async def _note(interaction: "discord.Interaction[AnimaticBot]", job: Job, done: str) -> None:
    """Write down what a moderator did with somebody else's clip."""
    if job.guild_id and interaction.user.id != job.asker_id:
        await interaction.client.note(job.guild_id, [answer.audit_press(interaction.user.id, job, done)])


def form_ask(job: Job, kind: str) -> Ask:
    """What the modal of *Remix* or *Continue* begins with."""
    ask = asked(job)
    if kind == "continue":
        ask = replace(ask, prompt="", has_picture=True, has_end_picture=False)
    return ask


def thread_of(channel: object) -> int | None:
    """The channel that a thread is in; None for what is no thread."""
    return channel.parent_id if isinstance(channel, discord.Thread) else None


def is_age_restricted(channel: object) -> bool:
    """Whether Discord shows a channel, or the one that a thread is in, to adults only; as far as it is known."""
    ask = getattr(channel, "is_nsfw", None)
    return ask is not None and bool(ask())


def who(interaction: discord.Interaction[Any]) -> Who:
    """The person behind an interaction, as the desk wants to know them."""
    assert interaction.channel_id is not None
    roles = interaction.user.roles if isinstance(interaction.user, discord.Member) else []
    return Who(
        id=interaction.user.id,
        channel_id=interaction.channel_id,
        thread_of=thread_of(interaction.channel),
        guild_id=interaction.guild_id,
        moderator=interaction.permissions.manage_messages,
        roles=frozenset(role.id for role in roles),
        interaction_id=interaction.id,
        upload_limit=interaction.filesize_limit,
        age_restricted=is_age_restricted(interaction.channel),
    )
