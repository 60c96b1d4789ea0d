"""`/help`."""

from tests.cogs.conftest import MODELS, Town, said


async def test_help_lists_the_models_and_their_prices(town: Town) -> None:
    """Private, from the live menu, with the emoji that is really listened to."""
    result = await town.ada.slash(town.channel, "help")

    text = said(result)
    assert "**/animate** with a prompt and a picture" in text
    assert "React to a clip with 🔁" in text
    assert "- Kling: 5 s $0.35, 10 s $0.70" in text
    assert "- Luma: 5 s $0.30" in text
    assert "- Runway: 5 s $0.25, 10 s $0.50" in text
    assert "- Sketch: 5 s free, 10 s free" in text
    assert "made by AI" in text
    assert town.messages() == []


async def test_help_follows_the_config(town: Town) -> None:
    """After a restart with fewer models it names those alone."""
    await town.restart(models={"luma": MODELS["luma"]})

    text = said(await town.ada.slash(town.channel, "help"))

    assert "Luma" in text
    assert "Kling" not in text


async def test_help_fits_into_a_message(town: Town) -> None:
    """Discord takes 2,000 characters, also where the owner has configured many models."""
    many = {
        f"kling-{n}": MODELS["kling"].model_copy(update={"variant": "kling", "label": "K" * 80})
        for n in range(25)
    }
    await town.restart(models=many)

    text = said(await town.ada.slash(town.channel, "help"))

    assert len(text) <= 2000
