"""Everything that Discord counts, against Discord's numbers: commands, cards, posts, menus, modals.

The numbers are those of Discord's documentation (interactions/application-commands, components/reference,
resources/message), and two that are known from its tracker: discord-api-docs PR#8562 and #8554.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import discord
import pytest
from simcord.components import COMPONENTS_V2_FLAG, validate_components, validate_modal

from bot.config import ModelSettings
from bot.errors import Cause, Refusal
from bot.jobs.announcing import Waiting
from bot.jobs.archive import HISTORY_PAGE, QUEUE_PAGE, Line, Past, Shown, Turn, Way
from bot.jobs.browsing import MINE, Crowd
from bot.jobs.comparing import Leaderboard, Versus
from bot.jobs.comparisons import Choice, Comparison
from bot.jobs.desk import Ask, Forgetting, asked, blocked, possible
from bot.jobs.guilds import (
    LONGEST_PATTERN,
    MOST_CENTS,
    MOST_CHOSEN,
    MOST_CLIPS,
    MOST_PATTERNS,
    MOST_WORDS,
    GuildSettings,
    WhosePictures,
)
from bot.jobs.health import Trouble
from bot.jobs.machine import OPEN, Charge, Job, Lineage, State
from bot.jobs.models import Menu, Model
from bot.jobs.moderation import COMMENTS_SHOWN, Block, Review, Verdict
from bot.jobs.rating import Rating
from bot.jobs.safety import BLOCKS_PAGE, LONGEST_REASON, LONGEST_WORDS, Blocking, Case
from bot.jobs.usage import TOP, Month, Sheet, Usage
from bot.providers.base import Capabilities
from bot.ui import answer, cards, catalogue, forms, guide, lists, reviews
from bot.ui import comparisons as comparing
from bot.ui import settings as panels
from bot.ui import usage as usages
from bot.ui.controls import LABELS, ConsentButton, JobButton, ModelSelect, form_ask
from bot.ui.sources import MOST_PICTURES, Source
from cogs.animate import FORM, animate_command
from tests.cogs import conftest
from tests.cogs.conftest import MODELS, Town
from tests.jobs.test_machine import a_job

town = conftest.town

SLASH_COMMANDS, USER_COMMANDS, MESSAGE_COMMANDS = 100, 15, 15
COMMAND_NAME = re.compile(r"[-_'a-z0-9]{1,32}")  # of slash commands, in our alphabet
MENU_NAME = 32
DESCRIPTION = 100
OPTIONS, CHOICES = 25, 25
WHOLE_COMMAND = 8000
CUSTOM_ID = 100
BUTTON_LABEL, PHONE_LABEL = 80, 38
SELECT_OPTIONS, OPTION_TEXT, PLACEHOLDER, INPUT_PLACEHOLDER = 25, 100, 150, 100
ROW = 5
COMPONENTS = 40
TEXTS, TEXT_BYTES, ALT = 4000, 10_000, 1024
GALLERY = 10
MODAL_TITLE, MODAL_QUESTIONS, QUESTION, QUESTION_MORE, TYPED = 45, 5, 45, 100, 4000
CONTENT = 2000
NONCE = 25
ID = "a" * 20  # the longest that the tables hold
USER = 2**63 - 1  # the largest snowflake: 19 digits

BUTTON, SELECT, INPUT, TEXT, THUMBNAIL, ROW_TYPE, LABEL = 2, 3, 4, 10, 11, 1, 18
ROLES, CHANNELS = 6, 8  # selects of them


# A menu as large and as wordy as a configuration can make it


def wordy_menu(count: int = 40) -> Menu:
    """Models with the longest labels a config takes, and more of everything than a select holds."""
    longest = next(
        m.max_length for m in ModelSettings.model_fields["label"].metadata if hasattr(m, "max_length")
    )
    can = Capabilities(
        seconds=tuple(range(1, 61)),
        qualities=tuple(f"quality-{number:0>8}" for number in range(30)),
        ratios=tuple(f"{number}:1" for number in range(1, 31)),
        shapes=tuple(f"1:{number}" for number in range(1, 31)),
        cameras=tuple(f"camera-{number}" for number in range(30)),
        prompt_length=6000,
        negative_prompt=1000,
        strength=(0.0, 1.0),
        loop=True,
        sound=True,
        end_picture=True,
        text_only=True,
        credit="Made with " + "x" * 80,
    )
    names = [f"{'m' * 28}{number:0>4}" for number in range(count)]
    models = {
        name: Model(
            name=name,
            label=("Ж" * longest)[: longest - 4] + name[-4:],
            route="makevid",
            variant=name,
            can=can if number % 2 else replace(can, seconds=(5,), qualities=(), shapes=()),
            price_cents=lambda _seconds, _quality, _sound: 123_456_789,
        )
        for number, name in enumerate(names)
    }
    return Menu(models=models, default=names[-1], currency="Currency")


def wordy_job(state: State, **changes: Any) -> Job:
    """A job of that menu with everything set to its longest."""
    return replace(
        a_job(state),
        asker_id=USER,
        channel_id=USER,
        card_channel_id=USER - 1,
        model=wordy_menu().default,
        prompt="Ж@`" * 2000,
        negative_prompt="Ж" * 1000,
        seconds=60,
        quality="quality-00000001",
        ratio="1:2",
        camera="camera-1",
        loop=True,
        sound=True,
        picture_file="picture.png",
        end_picture_file="end-picture.png",
        price_cents=123_456_789,
        **({"id": ID} | changes),
    )


def walk(payload: Any) -> Iterator[dict[str, Any]]:
    """Every component in a payload, nested ones included."""
    if isinstance(payload, list):
        for part in payload:
            yield from walk(part)
    elif isinstance(payload, dict):
        if "type" in payload:
            yield payload
        for key in ("components", "accessory", "component"):
            yield from walk(payload.get(key))


def check_controls(parts: list[dict[str, Any]]) -> None:
    """Buttons, selects and text inputs, wherever they stand."""
    ids = [part["custom_id"] for part in parts if "custom_id" in part]
    assert len(ids) == len(set(ids))
    assert all(1 <= len(custom_id) <= CUSTOM_ID for custom_id in ids)
    for part in parts:
        if part["type"] == ROW_TYPE:
            assert 1 <= len(part["components"]) <= ROW
        elif part["type"] == BUTTON:
            assert 1 <= len(part["label"]) <= PHONE_LABEL <= BUTTON_LABEL
        elif part["type"] == SELECT:
            options = part["options"]
            assert 1 <= len(options) <= SELECT_OPTIONS
            assert len({option["value"] for option in options}) == len(options)
            assert sum(option.get("default", False) for option in options) <= part.get("max_values", 1)
            assert len(part.get("placeholder") or "") <= PLACEHOLDER
            for option in options:
                assert 1 <= len(option["label"]) <= OPTION_TEXT
                assert 1 <= len(option["value"]) <= OPTION_TEXT
                assert len(option.get("description") or "") <= OPTION_TEXT
        elif part["type"] in (ROLES, CHANNELS):
            assert 0 <= part["min_values"] <= part["max_values"] <= SELECT_OPTIONS
            assert len(part.get("default_values", [])) <= part["max_values"]
            assert len(part.get("placeholder") or "") <= PLACEHOLDER
        elif part["type"] == INPUT:
            assert 1 <= part["max_length"] <= TYPED
            assert len(part.get("value") or "") <= part["max_length"]
            assert len(part.get("placeholder") or "") <= INPUT_PLACEHOLDER


def check_message(components: list[dict[str, Any]]) -> None:
    """A message of Components V2."""
    parts = list(walk(components))
    assert 1 <= len(parts) <= COMPONENTS
    check_controls(parts)
    texts = [part["content"] for part in parts if part["type"] == TEXT]
    media = [part for part in parts if part["type"] == THUMBNAIL]
    media += [item for part in parts for item in part.get("items", [])]
    alts = [item.get("description") or "" for item in media]
    assert all(texts)
    assert len("".join(texts)) <= TEXTS
    assert len("".join([*texts, *alts]).encode()) <= TEXT_BYTES
    assert all(len(alt) <= ALT for alt in alts)
    assert all(1 <= len(part["items"]) <= GALLERY for part in parts if "items" in part)
    validate_components(components, flags=COMPONENTS_V2_FLAG)  # and by the rules that simcord has


def check_modal(payload: dict[str, Any]) -> None:
    assert 1 <= len(payload["title"]) <= MODAL_TITLE
    assert 1 <= len(payload["custom_id"]) <= CUSTOM_ID
    assert 1 <= len(payload["components"]) <= MODAL_QUESTIONS
    parts = list(walk(payload["components"]))
    check_controls(parts)
    for part in parts:
        if part["type"] == LABEL:
            assert 1 <= len(part["label"]) <= QUESTION
            assert len(part.get("description") or "") <= QUESTION_MORE
    validate_modal(payload)  # and by the rules that simcord has


# Commands


def check_command(payload: dict[str, Any]) -> None:
    """One command as it is sent, with its subcommands and options."""
    if payload["type"] == 1:
        assert COMMAND_NAME.fullmatch(payload["name"])
        assert 1 <= len(payload["description"]) <= DESCRIPTION
    else:
        assert 1 <= len(payload["name"]) <= MENU_NAME
    assert counted(payload) <= WHOLE_COMMAND
    check_options(payload.get("options", []))


def check_options(options: list[dict[str, Any]]) -> None:
    assert len(options) <= OPTIONS
    names = [option["name"] for option in options]
    assert len(names) == len(set(names))
    required = [bool(option.get("required")) for option in options]
    assert required == sorted(required, reverse=True), "required options come first"
    for option in options:
        assert COMMAND_NAME.fullmatch(option["name"])
        assert 1 <= len(option["description"]) <= DESCRIPTION
        choices = option.get("choices") or []
        assert len(choices) <= CHOICES
        assert len({choice["name"] for choice in choices}) == len(choices)
        for choice in choices:
            assert 1 <= len(choice["name"]) <= OPTION_TEXT
            assert len(str(choice["value"])) <= OPTION_TEXT
        check_options(option.get("options") or [])


def counted(payload: dict[str, Any]) -> int:
    """What counts towards a command's 8,000 characters: names, descriptions and values."""
    own = (
        len(payload.get("name", ""))
        + len(payload.get("description", ""))
        + len(str(payload.get("value", "")))
    )
    return own + sum(counted(part) for key in ("options", "choices") for part in payload.get(key) or [])


MANY = {
    f"kling-{n}": ModelSettings(route="makevid", variant="kling", label=f"{n} ".ljust(80, "K"))
    for n in range(30)
}


@pytest.mark.parametrize("models", [MODELS, MANY, {"sketch": MODELS["sketch"]}], ids=["usual", "many", "one"])
async def test_the_command_tree(town: Town, models: dict[str, ModelSettings]) -> None:
    """As the bot registers it, cogs and all, with few models and with many."""
    await town.restart(models=models)
    tree = town.animatic.bot.tree
    payloads = [command.to_dict(tree) for command in tree.get_commands()]

    kinds = [payload["type"] for payload in payloads]
    assert kinds.count(1) <= SLASH_COMMANDS
    assert kinds.count(2) <= USER_COMMANDS
    assert kinds.count(3) <= MESSAGE_COMMANDS
    assert {payload["name"] for payload in payloads} >= {"animate", "help", catalogue.ANIMATE_MENU}
    for payload in payloads:
        check_command(payload)
        assert payload["contexts"] == [0], "in servers only"


async def test_animate_with_a_wordy_config(town: Town) -> None:
    """Its choices come from the config: forty models with long labels must not break the sync."""

    async def submit(*_args: object) -> None: ...

    check_command(animate_command(wordy_menu(), submit).to_dict(town.animatic.bot.tree))


# Messages


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("cause", [None, *Cause])
def test_every_card(state: State, cause: Cause | None) -> None:
    """In all states, with every cause, and whatever was charged."""
    for charge in Charge:
        job = wordy_job(state, cause=cause, charge=charge, doubted=True)
        view = cards.card(job, wordy_menu(), Waiting(place=10**6, late=False))
        check_message(view.to_components())


@pytest.mark.parametrize("lineage", [None, *Lineage])
@pytest.mark.parametrize("pictures", [True, False])
def test_every_post(lineage: Lineage | None, pictures: bool) -> None:
    """With an emoji of a server's own, which is the longest kind."""
    emoji = f"<a:{'e' * 32}:{USER}>"
    view = cards.post(
        wordy_job(State.POSTING, lineage=lineage),
        wordy_menu(),
        f"animatic-{ID}.mp4",
        seconds_taken=10**6,
        emoji=emoji,
        pictures=pictures,
    )

    payload = view.to_components()
    check_message(payload)
    assert all(len(part["label"]) <= 12 for part in walk(payload) if part["type"] == BUTTON), (
        "five in a row on a phone"
    )


@pytest.mark.parametrize("cause", Cause)
def test_every_private_post(cause: Cause) -> None:
    """What goes to the asker instead."""
    job = wordy_job(State.POSTING)

    check_message(cards.private_post(job, wordy_menu(), f"animatic-{ID}.mp4", cause).to_components())


@pytest.mark.parametrize("cause", Cause)
def test_every_word_to_the_owner(cause: Cause) -> None:
    """A plain message."""
    now = a_job(State.QUEUED).created_at

    assert len(cards.route_in_trouble("r" * 32, Trouble(cause=cause, since=now, until=now))) <= CONTENT


def test_nonces() -> None:
    """Of the card and the post: the job's id and a letter."""
    assert len(ID) + 1 <= NONCE


@pytest.mark.parametrize("verb", LABELS)
def test_every_button(verb: str) -> None:
    """With as much in its custom_id as a button may carry, which it understands again."""
    button = JobButton(ID, verb, USER, USER)

    check_controls([button.item.to_component_dict()])
    assert button.template.fullmatch(button.custom_id)
    assert not ModelSelect.__discord_ui_compiled_template__.fullmatch(button.custom_id)


@pytest.mark.parametrize("count", [2, 25, 26, 40])
def test_the_menu_of_models(count: int) -> None:
    """However many models there are."""
    menu = wordy_menu(count)
    select = ModelSelect(ID, forms.model_options(possible(Ask(prompt="waves", has_picture=True), menu), menu))

    check_controls([select.item.to_component_dict()])
    assert select.template.fullmatch(select.custom_id)
    assert not JobButton.__discord_ui_compiled_template__.fullmatch(select.custom_id)


# Modals


@pytest.mark.parametrize("count", [1, 2, 25, 26, 40])
@pytest.mark.parametrize("kind", forms.TITLES)
def test_every_modal(kind: str, count: int) -> None:
    """Filled with the longest there is, of a clip with a picture and of one from words alone."""
    menu = wordy_menu(count)
    pictured = wordy_job(State.DELIVERED)
    plain = replace(pictured, picture_file=None, end_picture_file=None, ratio="3:1")
    many = [Source(url="https://x", name="п" * 300, width=10**5, height=10**5)] * MOST_PICTURES

    for job in (pictured, plain):
        ask = form_ask(job, kind) if kind != "animate" else Ask(prompt="", has_picture=True)
        for pictures in ([], many[:1], many):
            form = forms.form(f"job:{ID}:{kind}", kind, ask, menu, pictures=pictures)
            check_modal(form.to_dict())


# The panel of /settings


def full_settings(**changes: Any) -> GuildSettings:
    """Everything decided, and as much of it as can be."""
    most = frozenset(range(USER - MOST_CHOSEN, USER))
    return GuildSettings(
        channels=most,
        roles=most,
        default_model=wordy_menu().default,
        default_seconds=60,
        most_cents=MOST_CENTS,
        requeue_emoji=f"<a:{'e' * 32}:{USER}>",
        requeue_roles=most,
        requeues_per_day=MOST_CLIPS,
        confirm_above_cents=MOST_CENTS,
        pictures=WhosePictures.ASK,
        spoiler=True,
        audit_channel=USER,
        review_channel=USER,
        results_channel=USER,
        member_clips_per_day=MOST_CLIPS,
        member_cents_per_day=MOST_CENTS,
        role_clips_per_day=dict.fromkeys(most, MOST_CLIPS),
        channel_clips_per_day=MOST_CLIPS,
        server_cents_per_day=MOST_CENTS,
        server_cents_per_month=MOST_CENTS,
        blocked_words=tuple(f"{number:0>19}" for number in range(MOST_WORDS)),
        blocked_patterns=tuple(f"{number:0>119}" for number in range(MOST_PATTERNS)),
        **changes,
    )


@pytest.mark.parametrize("settings", [GuildSettings(), full_settings(paused="everywhere")])
@pytest.mark.parametrize("page", panels.PAGES)
def test_every_page_of_the_settings(page: str, settings: GuildSettings) -> None:
    """With nothing and with everything decided, few models and many; every control is one that is understood."""
    for count in (1, 24, 25, 40):
        known = range(USER - MOST_CHOSEN, USER + 1)
        payload = panels.panel(settings, wordy_menu(count), page, known=known).to_components()
        check_message(payload)
        for part in walk(payload):
            verb, _, name = part.get("custom_id", "").removeprefix(panels.PREFIX).partition(":")
            if verb == "set":
                assert panels.PAGE_OF[name] == page
                first = part["options"][0]["value"] if part["type"] == SELECT else str(USER)
                GuildSettings.model_validate(settings.model_dump() | panels.chosen(name, [first]))
            elif verb == "ask":
                assert panels.FORMS[name][0] == page


def test_every_setting_is_on_the_panel() -> None:
    """And every control is one of a setting that is written down when it changes."""
    asked = {field for _, form in panels.FORMS.values() for field in form} | {"role_clips_per_day"}

    assert asked | set(panels.PAGE_OF) == set(panels.FIELDS) == set(GuildSettings.model_fields) - {"paused"}


@pytest.mark.parametrize("settings", [GuildSettings(), full_settings()])
def test_every_modal_of_the_settings(settings: GuildSettings) -> None:
    """Filled with as much as there can be, which is understood again as it stands."""
    menu = wordy_menu()
    for name, (_, questions) in panels.FORMS.items():
        payload = panels.form(name, settings, menu).to_dict()
        check_modal(payload)
        answers = {
            part["custom_id"]: part.get("value") or ""
            for part in walk(payload["components"])
            if part["type"] == INPUT
        }
        assert panels.typed(name, answers, menu, settings) == {
            field: getattr(settings, field) for field in questions
        }
    check_modal(panels.role_form(USER, "Ж" * 100, settings).to_dict())


def test_the_question_to_the_owner_of_a_picture() -> None:
    """Its button, and its sentences."""
    button = ConsentButton(USER, USER, 10**11)

    check_controls([button.item.to_component_dict()])
    assert button.template.fullmatch(button.custom_id)
    assert not JobButton.__discord_ui_compiled_template__.fullmatch(button.custom_id)
    assert len(answer.asked_owner(USER, USER, 10**11)) <= CONTENT


def test_every_line_of_the_audit() -> None:
    """Fits into a message, however much was changed."""
    for before, after in ((GuildSettings(), full_settings()), (full_settings(), GuildSettings())):
        lines = panels.audit_lines(USER, before, after, wordy_menu())
        assert len(lines) == len(panels.FIELDS)
        assert all(len(line) <= CONTENT for line in lines)


def test_a_prompt_given_back() -> None:
    """As much of it as a message holds."""
    refusal = forms.refused(Refusal("x" * 300), "```Ж" * 1000)

    assert len(str(refusal)) <= CONTENT
    assert str(refusal).endswith("…\n```")


def test_the_modal_of_a_menu_knows_its_name() -> None:
    """An interaction's id fits behind it."""
    assert len(f"{FORM}{USER}") <= CUSTOM_ID


def test_the_meant_model_is_offered_among_many() -> None:
    """Also where there are more models than a select holds."""
    menu = wordy_menu(40)

    form = forms.form("job:a:remix", "remix", asked(wordy_job(State.DELIVERED)), menu).to_dict()

    [model] = [part for part in walk(form["components"]) if part.get("custom_id") == "model"]
    assert [option["value"] for option in model["options"] if option.get("default")] == [menu.default]


# Lists and what the bot says about itself


@pytest.mark.parametrize("state", [*sorted(OPEN), State.UNDELIVERABLE, State.FAILED])
@pytest.mark.parametrize("cause", [None, *Cause])
def test_every_queue(state: State, cause: Cause | None) -> None:
    """A full page of the wordiest clips, in a server that waits for every model."""
    now = a_job(State.QUEUED).created_at
    jobs = tuple(
        (
            wordy_job(state, cause=cause, id=f"{number:a>20}", card_id=USER, guild_id=USER),
            Waiting(place=10**6, due=now, late=True),
        )
        for number in range(QUEUE_PAGE)
    )
    menu = wordy_menu()
    crowd = Crowd(
        by_model=tuple((name, 10**6, 10**6) for name in menu.models), members=10**6, elsewhere=10**6
    )

    for mine in ((), jobs):
        line = Line(mine=mine, page=1, pages=10**6, crowd=crowd, cards=jobs)
        view = lists.queue(line, menu, now + timedelta(hours=1))
        check_message(view.to_components())


@pytest.mark.parametrize("state", MINE)
@pytest.mark.parametrize("cause", [None, *Cause])
def test_every_page_of_the_past(state: State, cause: Cause | None) -> None:
    """As many as fit are shown; the rest is on the next page."""
    job = wordy_job(state, cause=cause, post_id=USER, guild_id=USER, charge=Charge.MAYBE)
    turn = Turn(member_id=USER, model=wordy_menu().default)
    past = Past(turn=turn, jobs=(job,) * HISTORY_PAGE, newer=True, older=False)

    payload = lists.history(past, wordy_menu()).to_components()

    check_message(payload)
    assert [part["label"] for part in walk(payload) if part["type"] == BUTTON] == ["Newer", "Older"]
    assert sum("/show" in part.get("content", "") for part in walk(payload)) >= 3


@pytest.mark.parametrize("lineage", Lineage)
@pytest.mark.parametrize("state", State)
def test_every_clip_shown(state: State, lineage: Lineage) -> None:
    """With a parent, many children, all times and a negative prompt."""
    now = a_job(State.QUEUED).created_at
    job = wordy_job(
        state,
        lineage=lineage,
        parent_id=ID,
        cause=Cause.MODERATION,
        post_id=USER,
        submitted_at=now,
        rendered_at=now,
    )
    shown = Shown(job=job, waiting=Waiting(), parent=job, takes=10**6)

    check_message(lists.show(shown, wordy_menu(), now, reader_id=USER).to_components())
    assert len(lists.choice(job, wordy_menu(), now)) <= OPTION_TEXT


def test_every_comparison() -> None:
    """The question, the post, the result and the leaderboard, with the wordiest models; the buttons are understood."""
    menu = wordy_menu()
    names = list(menu.models)
    now = a_job(State.QUEUED).created_at
    jobs = tuple(
        replace(wordy_job(State.DELIVERED, comparison_id=ID, sealed=True), model=name, end_picture_file=None)
        for name in names[:2]
    )
    pair = (jobs[0], jobs[1])
    files = (f"animatic-{ID}.mp4", f"animatic-{'b' * 20}.mp4")
    comparison = Comparison(
        id=ID, guild_id=USER, channel_id=USER, asker_id=USER, created_at=now, closes_at=now
    )
    plans = possible(Ask(prompt="Ж@`" * 2000, has_picture=True), menu)[:2]
    versus = Versus(plans=(plans[0], plans[1]))
    rows = tuple((name, Rating(9999.9, 9999.9, 10**6), 10**6) for name in names)

    posted = comparing.post(ID, pair, menu, files, closes_at=now, pictures=True, spoiler=True)
    check_message(posted.to_components())
    check_message(
        comparing.result(
            pair, menu, files, dict.fromkeys(Choice, 10**6), pictures=True, spoiler=True
        ).to_components()
    )
    for board in (
        Leaderboard(rows=(), votes=0, comparisons=0),
        Leaderboard(rows=rows, votes=10, comparisons=3),
    ):
        check_message(comparing.leaderboard(board, menu).to_components())
    for text in (
        comparing.question(versus, menu, comparison),
        comparing.receipt(jobs, menu),
        *(comparing.vote_noted(choice, comparison) for choice in Choice),
    ):
        assert 1 <= len(text) <= CONTENT
    start = comparing.StartButton(ID, comparing.start_label(versus, menu))
    buttons = [start, *(comparing.VersusButton(ID, verb) for verb in comparing.LABELS)]
    check_controls([button.item.to_component_dict() for button in buttons])
    for button in buttons:
        assert button.template.fullmatch(button.custom_id)
        assert not JobButton.__discord_ui_compiled_template__.fullmatch(button.custom_id)
    assert not [name for name in names if menu.label(name) in str(posted.to_components())]


async def test_help_and_privacy_with_a_wordy_config(town: Town) -> None:
    """The commands always fit; of the models, as many as do."""
    bot = town.animatic.bot
    reader = guide.Reader(
        permissions=discord.Permissions.all(),
        command_ids={command.name: USER for command in bot.tree.get_commands()},
    )

    for view in (
        guide.help_text(bot.tree, wordy_menu(), f"<a:{'e' * 32}:{USER}>", reader),
        guide.privacy(wordy_menu(), 10**6, reader),
        guide.confirm((10**6, 10**6, 10**6), USER),
        guide.forgetting(Forgetting(cancelled=10**6, under_way=10**6), posts=True),
    ):
        check_message(view.to_components())
    for withheld in (True, False):
        assert len(guide.consent_is(withheld, reader)) <= CONTENT


@pytest.mark.parametrize("picture", ["usage-2026-11.png", None])
@pytest.mark.parametrize("guild_id", [USER, None])
def test_every_page_of_the_usage(guild_id: int | None, picture: str | None) -> None:
    """A dear month with the longest names and the most of everything."""
    menu, much = wordy_menu(), 10**11
    usage = Usage(
        month=Month(2026, 9),
        guild_id=guild_id,
        spent=much,
        reserved=much,
        unsure=much,
        by_day=(much,) * 30,
        by_model=tuple((name, much, 10**6) for name in menu.models),
        top=tuple((USER - number, much, 10**6) for number in range(TOP)),
        others=much,
        delivered=10**6,
        failed=10**6,
        stuck=10**6,
        cancelled=10**6,
        under_way=10**6,
        wait=timedelta(days=99),
    )
    names = {one: "@*Ж_" * 25 for one, _, _ in usage.top}  # a server's name has at most 100 characters

    view = usages.page(usage, menu.currency, menu, "@*Ж_" * 25, names, picture=picture)

    check_message(view.to_components())
    assert len(usages.with_sheet(Sheet(data=b"", clips=10**6, whole=False), usage.month)) <= CONTENT
    assert len(usages.months_to_choose([Month(2026, 9)] * 40, "")) <= CHOICES


def test_buttons_of_lists_are_understood_again() -> None:
    """Each by its own kind alone."""
    turn = Turn(member_id=USER, model="m" * 32, way=Way.OLDER, beside=ID)
    items = [
        JobButton(ID, "post"),
        lists.QueueButton(10**5, "Previous"),
        lists.HistoryButton(turn),
        guide.ForgetButton(USER, "posts"),
        usages.SheetButton(USER, Month(2026, 9)),
        reviews.ReportButton(ID),
        reviews.ReviewButton(ID, "block"),
        reviews.BlockedButton(10**5, "Newer", everywhere=True),
    ]

    check_controls([item.item.to_component_dict() for item in items])
    for item in items:
        fits = [other for other in items if other.template.fullmatch(item.custom_id)]
        assert fits == [item]


# Reports and blocks


def wordy_review(state: Verdict) -> Review:
    return Review(
        job_id=ID,
        guild_id=USER,
        state=state,
        post_id=USER,
        channel_id=USER,
        shown_in=USER,
        shown_as=USER,
        decided_by=USER,
        decided_at=a_job(State.QUEUED).created_at,
        cleared_at=None,
        reasons=dict.fromkeys([*reviews.REASONS, "of a newer version"], 10**6),
        words=("Ж@`" * LONGEST_WORDS,) * COMMENTS_SHOWN,
    )


@pytest.mark.parametrize("state", Verdict)
def test_every_review(state: Verdict) -> None:
    """With the longest prompts, every reason, and as many words of reporters as are shown."""
    job, review = wordy_job(State.DELIVERED), wordy_review(state)
    payload = reviews.layout(job, review, fallback=True).to_components()

    check_message(payload)
    for button in (part for part in walk(payload) if part["type"] == BUTTON):
        assert reviews.ReviewButton.__discord_ui_compiled_template__.fullmatch(button["custom_id"])
    if state is not Verdict.OPEN:
        case = Case(job=job, review=review, gone=False, cancelled=10**6)
        assert len(reviews.audit_decision(USER, case)) <= CONTENT


def test_the_modals_of_reports() -> None:
    """Each is understood by its custom_id."""
    for form, understood in (
        (reviews.report_form(ID), reviews.REPORT_FORM),
        (reviews.block_form(ID), reviews.BLOCK_FORM),
    ):
        check_modal(form.to_dict())
        assert understood.fullmatch(form.custom_id)


def test_the_list_of_blocks() -> None:
    """A page of them with the longest reasons, and what is said of one."""
    now = a_job(State.QUEUED).created_at
    block = Block(
        guild_id=USER, member_id=USER, reason="@`" * (LONGEST_REASON // 2), until=now, by=USER, at=now
    )
    for everywhere in (True, False):
        view = reviews.blocked_list([block] * BLOCKS_PAGE, 10**5, 10**6, everywhere=everywhere)
        check_message(view.to_components())
    check_message(reviews.blocked_list([], 0, 0, everywhere=False).to_components())
    done = Blocking(block=block, cancelled=10**6, under_way=10**6)
    for sentence in (
        reviews.blocked_answer(done),
        reviews.audit_block(USER, done),
        reviews.bad_pattern("@`" * LONGEST_PATTERN),
        str(blocked(block)),
        *(str(refusal) for refusal in (reviews.cannot_be_blocked(USER), reviews.not_a_clip())),
    ):
        assert len(sentence) <= CONTENT
