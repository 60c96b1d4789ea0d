"""/usage: the numbers of a server for those who manage it, of all servers for the owner, and the file."""

import csv
import io
from dataclasses import replace
from datetime import timedelta
from typing import Any

import discord
import pytest
from PIL import Image
from simcord import InteractionResult, MemberActor

from bot.jobs.machine import NOBODY, CardPosted, Job
from bot.jobs.store import new_job_id
from bot.jobs.usage import Month
from bot.media import charts
from bot.ui import usage as pages
from bot.ui.announcer import media_of
from bot.ui.settings import MODERATOR
from tests.cogs.conftest import Town, answer_to, buttons, picture, said, text_of
from tests.jobs.test_machine import a_job
from tests.jobs.test_usage import POSTED

CSV = "Get it as CSV"


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the plotting library is not installed, for tests that look at no picture: each takes a process."""
    monkeypatch.setattr(charts, "installed", lambda: False)


async def opened(town: Town, by: MemberActor | None = None, **options: Any) -> discord.Message:
    return answer_to(await town.slash(by or town.manager, "usage", **options))


async def spent(town: Town, **changes: Any) -> None:
    """A clip that was made and posted, straight in the books."""
    at = changes.setdefault("created_at", town.now())
    usual = {"id": new_job_id(at), "changed_at": at, "reserved_at": at, "guild_id": town.guild.id}
    store = town.animatic.store
    job: Job | None = await store.add(
        replace(a_job(), **(usual | {"price_cents": 20, "asker_id": town.ada.id} | changes))
    )
    for outcome in (CardPosted(5), *POSTED):
        assert job
        job = await store.advance(job, outcome, at + timedelta(minutes=1))
    assert job


def rows(result: InteractionResult) -> list[dict[str, str]]:
    """The file that a press gave."""
    [attachment] = answer_to(result).attachments
    assert attachment.filename.startswith("usage-")
    assert attachment.filename.endswith(".csv")
    return list(csv.DictReader(io.StringIO(attached(result).decode("utf-8-sig"))))


def attached(result: InteractionResult) -> bytes:
    [attachment] = answer_to(result).attachments
    data = result._env.backend.cdn.get(attachment.url)
    assert data is not None
    return data


def drawn(town: Town, message: discord.Message) -> tuple[Image.Image, str]:
    """The picture of an answer, and its alt text."""
    [media] = list(media_of(message))
    galleries = [part for part in message.components[0].to_dict()["components"] if part["type"] == 12]  # type: ignore[typeddict-item]
    alt = galleries[0]["items"][0]["description"]  # type: ignore[typeddict-item]
    data = town.file(media)
    assert len(data) < 1_000_000
    return Image.open(io.BytesIO(data)), alt


@pytest.mark.parametrize("person", ["ada", "moderator"])
async def test_it_is_for_those_who_manage_the_server(town: Town, person: str) -> None:
    """Discord does not offer it to others."""
    actor: MemberActor = getattr(town, person)

    assert "usage" not in actor.available_commands(town.channel)
    assert "usage" in town.manager.available_commands(town.channel)


async def test_a_month_in_a_picture_and_in_words(town: Town) -> None:
    """Private; with who it was, by mentions that ping nobody."""
    await town.posted(town.ada)
    await town.posted(town.bob, seconds=10)

    message = await opened(town)

    assert message.flags.ephemeral
    image, alt = drawn(town, message)
    assert (image.format, image.size) == ("PNG", (charts.WIDTH, charts.HEIGHT))
    name = Month.of(town.now()).name
    for words in (
        f"Harbour Film Club in {name}",
        "$1.05 spent",
        "2 clips posted",
        "success 100 %",
        "Kling $1.05",
    ):
        assert words in alt
    assert alt.endswith("Top members: bob $0.70, ada $0.35.")
    text = text_of(message)
    assert f"Usage in {name}" in text
    assert "**$1.05** spent" in text
    assert f"1. {town.bob.mention} $0.70 · 2. {town.ada.mention} $0.35" in text
    assert buttons(message) == [CSV]


@pytest.mark.usefixtures("undrawn")
async def test_only_this_server(town: Town) -> None:
    """What others spend is nobody's business here; the owner sees all, by server."""
    await town.posted(town.ada)
    await spent(town, guild_id=4711, price_cents=1000)
    here = text_of(await opened(town))

    refused = town.refusal(await town.slash(town.manager, "usage", everywhere=True))
    town.animatic.bot.owner_id = town.manager.id
    everywhere = await opened(town, everywhere=True)

    assert "**$0.35** spent" in here
    assert refused.startswith("Only this bot's owner can see all servers.")
    assert "**$10.35** spent" in text_of(everywhere)
    assert "1. a server I am not in $10.00 · 2. Harbour Film Club $0.35" in text_of(everywhere)
    assert len(rows(await town.manager.click(everywhere, label=CSV))) == 2


async def test_the_file(town: Town) -> None:
    """By button, after any restart; a line for each clip."""
    await town.posted(town.ada)
    message = await opened(town)
    await town.restart()

    [row] = rows(await town.manager.click(message, label=CSV))

    job = await town.job()
    assert (row["job"], row["spent"], row["member"]) == (job.id, "0.35", str(town.ada.id))
    assert row["provider_task"] == job.provider_task


@pytest.mark.usefixtures("undrawn")
async def test_who_lost_the_right_gets_no_file(town: Town) -> None:
    """An answer stands for a while; who may see it is looked up at each press."""
    await town.posted(town.ada)
    message = await opened(town)
    town.animatic.bot.owner_id = town.manager.id
    everywhere = await opened(town, everywhere=True)
    town.animatic.bot.owner_id = 1
    managers = next(role for role in town.guild.roles.values() if role.name == "Managers")
    town.env.backend.remove_member_role(town.guild.id, town.manager.id, managers.id)
    await town.env.settle()

    assert said(await town.manager.click(message, label=CSV)) == MODERATOR
    assert said(await town.manager.click(everywhere, label=CSV)).startswith("Only this bot's owner")


async def test_a_month_without_clips(town: Town) -> None:
    """No picture of nothing."""
    assert said(await town.slash(town.manager, "usage")) == (
        f"No clip was asked for in this server in {Month.of(town.now()).name}."
    )
    assert said(await town.slash(town.manager, "usage", month="2025-02")).endswith("in February 2025.")
    assert "Write it like 2026-11" in town.refusal(await town.slash(town.manager, "usage", month="soon"))


@pytest.mark.usefixtures("undrawn")
async def test_months_are_offered(town: Town) -> None:
    """Those with numbers, by name; nothing to those who may not see them."""
    now = town.now()
    await spent(town, guild_id=town.guild.id, created_at=now - timedelta(days=70))
    await town.posted(town.ada)
    this, that = Month.of(now), Month.of(now - timedelta(days=70))

    offered = await town.manager.autocomplete(town.channel, "usage", "month", "")
    typed = await town.manager.autocomplete(town.channel, "usage", "month", that.name[:4].upper())

    assert [(one["name"], one["value"]) for one in offered] == [
        (this.name, str(this)),
        (that.name, str(that)),
    ]
    assert [one["value"] for one in typed] == [str(that)]
    assert "**$0.20** spent" in text_of(await opened(town, month=str(that)))


async def test_names(town: Town) -> None:
    """Who left and who was forgotten are told so; who has an odd name is told by a mention."""
    star = town.guild.add_member(town.env.create_user("star", global_name="★彡 [Зірка] 彡★ *|*"))
    await spent(town, asker_id=star.id, price_cents=30)
    await spent(town, asker_id=999_999_999_999_999, price_cents=20)
    await spent(town, asker_id=NOBODY, price_cents=10)

    message = await opened(town)

    _, alt = drawn(town, message)
    assert alt.endswith("★彡 [Зірка] 彡★ *|* $0.30, a member who left $0.20, forgotten members $0.10.")
    assert f"1. {star.mention} $0.30 · 2. <@999999999999999> $0.20 · 3. forgotten members $0.10" in text_of(
        message
    )


@pytest.mark.usefixtures("undrawn")
async def test_what_is_open_and_what_is_unsure_stand_apart(town: Town) -> None:
    """Only what was charged is spent."""
    await town.posted(town.ada)
    await town.animate(town.bob, picture=picture())

    text = text_of(await opened(town))

    assert "**$0.35** spent · $0.35 reserved for clips under way" in text
    assert "2 clips: 1 posted, 1 under way" in text


@pytest.mark.usefixtures("undrawn")
async def test_without_the_plotting_library(town: Town) -> None:
    """The same in words, and the file."""
    await town.posted(town.ada)

    message = await opened(town)

    assert list(media_of(message)) == []
    assert "**$0.35** spent" in text_of(message)
    assert pages.WITHOUT_PICTURE in text_of(message)
    assert len(rows(await town.manager.click(message, label=CSV))) == 1
