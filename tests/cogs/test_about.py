"""`/help` and `/privacy`."""

import discord
from discord import app_commands
from simcord import MemberActor

from bot.ui import guide
from tests.cogs.conftest import MODELS, Town, parts_of, text_of


async def asked(town: Town, command: str, member: MemberActor | None = None) -> str:
    """The private answer, which nobody else sees."""
    result = await town.slash(member or town.ada, command)
    assert result.response
    assert result.response.ephemeral
    message = result.response.message
    assert len(text_of(message)) <= 4000
    assert len(text_of(message).encode()) <= 10_000
    assert len(parts_of(message)) <= 40
    assert town.messages() == []
    return text_of(message)


async def test_help_lists_the_models_and_their_prices(town: Town) -> None:
    """Private, from the live menu, with the emoji that is really listened to."""
    text = await asked(town, "help")

    assert "with a prompt and a picture" in text
    assert "React to a clip with 🔁" in text
    assert "- Kling: 5 s $0.35, 10 s $0.70" in text
    assert "- Luma: 5 s $0.30" in text
    assert "- Runway: 5 s $0.25, 10 s $0.50" in text
    assert "- Sketch: 5 s free, 10 s free" in text
    assert "made by AI" in text


async def test_help_follows_the_config(town: Town) -> None:
    """After a restart with fewer models it names those alone."""
    await town.restart(models={"luma": MODELS["luma"]})

    text = await asked(town, "help")

    assert "Luma" in text
    assert "Kling" not in text


async def test_help_fits_into_a_message(town: Town) -> None:
    """Discord takes 4,000 characters, also where the owner has configured many models."""
    many = {
        f"kling-{n}": MODELS["kling"].model_copy(update={"variant": "kling", "label": "K" * 80})
        for n in range(25)
    }
    await town.restart(models=many)

    assert "more" in await asked(town, "help")
    await asked(town, "privacy")


async def test_help_names_every_command_to_be_clicked(town: Town) -> None:
    """With the ids that Discord gave them, subcommands too; also after a restart that sends nothing."""
    ids = {command.name: command.id for command in await town.animatic.bot.tree.fetch_commands()}
    first = await asked(town, "help")
    await town.restart()

    text = await asked(town, "help")

    assert text == first
    assert f"</animate:{ids['animate']}>" in text
    assert f"- </mydata export:{ids['mydata']}> · {guide.COMMANDS['mydata export']}" in text
    names = [
        command.qualified_name
        for command in town.animatic.bot.tree.walk_commands()
        if isinstance(command, app_commands.Command) and command.default_permissions is None
    ]
    assert all(f"</{name}:" in text for name in names)


async def test_help_where_the_ids_are_not_known(town: Town) -> None:
    """The note is gone: plain words instead of links."""
    town.animatic.bot.command_ids = {}

    assert "- **/mydata export** ·" in await asked(town, "help")


async def test_help_names_only_what_the_reader_may_use(town: Town) -> None:
    """A command for moderators is shown to moderators."""

    @app_commands.command(name="tidy", description="For those who clean up")
    @app_commands.default_permissions(manage_messages=True)
    async def tidy(interaction: discord.Interaction) -> None:
        del interaction

    town.animatic.bot.tree.add_command(tidy)

    assert "tidy" not in await asked(town, "help")
    assert "**/tidy**" in await asked(town, "help", town.moderator)


async def test_privacy(town: Town) -> None:
    """What goes where, by the configured models, and for how long."""
    text = await asked(town, "privacy")

    assert "- Kling, Luma, Runway: through `makevid`" in text
    assert "- Sketch: drawn on this bot's own machine" in text
    assert "could not be posted for 7 days at most" in text
    assert f"</mydata delete:{town.animatic.bot.command_ids['mydata']}>" in text
