"""The `animatic` command, in processes of its own, against a Discord and a gateway on loopback."""

import asyncio
import json
import signal
import sqlite3
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from discord.http import Route
from PIL import Image

from bot import __main__ as root
from bot.config import load
from bot.errors import Cause, ProviderUnsure
from bot.jobs.machine import Job, State
from bot.jobs.store import open_store
from bot.media import clip as clips
from tests import asking
from tests.cogs.conftest import small_clip
from tests.conftest import Clock
from tests.forked import Forked, environment
from tests.jobs.world import make_world
from tests.servers.discord import BOT_ID, CHANNEL_ID, TOKEN, DiscordServer
from tests.servers.everything import all_routes
from tests.servers.makevid import MakevidServer

DATA = Path(__file__).parent / "data"
WIDE = {"COLUMNS": "200", "NO_COLOR": "1"}


@pytest.fixture
async def discord() -> AsyncIterator[DiscordServer]:
    async with DiscordServer() as server:
        yield server


@pytest.fixture
def config(tmp_path: Path, discord: DiscordServer) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(
        f"""
        [discord]
        token = "{discord.token}"
        api_base = "{discord.api_base}"
        [store]
        url = "sqlite+aiosqlite:///{(tmp_path / "jobs.db").as_posix()}"
        [data]
        folder = "{(tmp_path / "data").as_posix()}"
        """
    )
    return path


async def start(*arguments: object) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", *map(str, arguments), stdout=PIPE, stderr=PIPE, env=environment(**WIDE)
    )


async def animatic(*arguments: object, cwd: Path | None = None) -> tuple[int, str, str]:
    """Run a command to its end: code, output, errors."""
    with tempfile.TemporaryDirectory() as name:
        out, err = Path(name) / "out", Path(name) / "err"
        command = ("bot", *map(str, arguments))
        process = Forked(command, log=err, out=out, environment=environment(**WIDE), folder=cwd)
        code = await asyncio.wait_for(process.wait(), timeout=60)
        return code, out.read_text(), err.read_text()


async def test_without_a_command_it_shows_what_there_is(tmp_path: Path) -> None:
    """The newcomer's first try."""
    _, out, err = await animatic(cwd=tmp_path)

    for command in ("run", "demo", "render", "invite", "doctor", "jobs"):
        assert command in out + err


async def test_mistakes_in_the_config_end_with_2_and_no_traceback(tmp_path: Path) -> None:
    """All of them at once, by key."""
    config = tmp_path / "config.toml"
    config.write_text('[discord]\nshard_count = "many"\n[logging]\nlevl = "INFO"\n')

    code, _, err = await animatic("doctor", "--config", config)

    assert code == 2
    assert "discord.shard_count" in err
    assert "logging.level" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["run", "doctor", "invite"])
async def test_without_a_token_it_says_where_to_get_one(command: str, tmp_path: Path) -> None:
    """Exit 2, a sentence, no traceback."""
    code, _, err = await animatic(command, cwd=tmp_path)

    assert code == 2
    assert "discord.token is missing" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["run", "doctor", "invite"])
async def test_a_wrong_token_is_said_to_be_wrong(
    command: str, config: Path, discord: DiscordServer, tmp_path: Path
) -> None:
    """And is not shown."""
    discord.token = "another"

    code, out, err = await animatic(command, "--config", config, cwd=tmp_path)

    assert code == 2
    assert "Discord does not accept it" in err
    assert "a-bot-token" not in out + err
    assert "Traceback" not in err


async def test_invite_asks_for_the_least_permissions(config: Path) -> None:
    """View, send (also in threads), attach, read history, add reactions; no administrator."""
    code, out, err = await animatic("invite", "--config", config)

    wanted = 1 << 10 | 1 << 11 | 1 << 38 | 1 << 15 | 1 << 16 | 1 << 6
    assert code == 0, err
    assert f"client_id={BOT_ID}" in out
    assert f"permissions={wanted}" in out
    assert "scope=bot+applications.commands" in out


async def test_invite_needs_no_token_when_the_application_is_named(tmp_path: Path) -> None:
    """The id stands on the application's page."""
    code, out, _ = await animatic("invite", "123456789", cwd=tmp_path)

    assert code == 0
    assert "client_id=123456789" in out


async def test_doctor_checks_all_it_can_without_spending(config: Path) -> None:
    """Config, database, models, token; and the invite link."""
    code, out, _ = await animatic("doctor", "--config", config)

    assert code == 0
    assert "logged in as Animatic" in out
    assert "sketch (on sketch)" in out
    assert "client_id=" in out


CHECKS = "async def look(proposal): ...\ndef plain(proposal): ...\n"


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("owners_checks:look", 0, "check     owners_checks:look can be asked"),
        ("owners_checks:plain", 2, 'safety.check = "owners_checks:plain": plain must be an `async def`'),
        ("no_such_checks:look", 2, "no_such_checks cannot be imported (ModuleNotFoundError)"),
        ("owners_checks", 2, "must be a module and a function in it, with a colon between"),
    ],
)
async def test_doctor_loads_the_owners_check(
    config: Path, tmp_path: Path, name: str, code: int, words: str
) -> None:
    """As the start does: what is wrong with it is told before a member asks."""
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "owners_checks.py").write_text(CHECKS)
    with config.open("a") as file:
        file.write(f'[safety]\ncheck = "{name}"\n')

    ended, out, err = await animatic("doctor", "--config", config, cwd=tmp_path / "checks")

    assert (ended, words in out + err) == (code, True)


@pytest.mark.parametrize(
    ("key", "code", "words"),
    [
        ("test-key", 0, "makevid: fine"),
        ("stale", 1, "makevid: refuses the key. Put a good one into routes.makevid"),
    ],
)
async def test_doctor_tries_every_key(config: Path, key: str, code: int, words: str) -> None:
    """A harmless question to each route; what is wrong comes with its mend, and nothing is created."""
    async with MakevidServer(clip=b"") as makevid:
        with config.open("a") as file:
            file.write(f'[routes.makevid]\napi_key = "{key}"\nbase_url = "{makevid.base_url}"\n')

        ended, out, err = await animatic("doctor", "--config", config)

    assert ended == code, err
    assert words in out
    assert key not in out + err
    assert makevid.creates == []


async def test_run_serves_until_it_is_told_to_stop(
    config: Path, discord: DiscordServer, tmp_path: Path
) -> None:
    """REST and gateway go to the configured address; SIGTERM ends it cleanly, nothing is left running."""
    process = await start("run", "--config", config)
    await asyncio.wait_for(discord.connected.wait(), timeout=30)

    process.send_signal(signal.SIGTERM)
    _, err = await asyncio.wait_for(process.communicate(), timeout=30)

    assert process.returncode == 0, err.decode()
    assert "Traceback" not in err.decode()
    assert {command["name"] for command in discord.commands} >= {"animate", "help", "Animate this picture"}
    assert (tmp_path / "data" / "alive").exists()
    privileged = 1 << 1 | 1 << 8 | 1 << 15
    assert not discord.identified[0]["intents"] & privileged


async def test_a_second_signal_ends_at_once(
    config: Path, discord: DiscordServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first waits for a paid call that is never answered; the second does not, and the row says what is known."""
    monkeypatch.setattr(Route, "BASE", discord.api_base)
    async with MakevidServer(clip=b"clip") as makevid:
        makevid.next_create = "never"
        with config.open("a") as file:
            file.write(
                f'[routes.makevid]\napi_key = "{makevid.api_key}"\nbase_url = "{makevid.base_url}"\n'
                'request_timeout = 70\n[models.kling]\nroute = "makevid"\n'
                "[network]\nallow_private_addresses = true\n"
            )
        async with root.build(load(config)) as animatic, animatic.bot:
            animatic.bot.serves_commands = False
            await root.log_in(animatic.bot, TOKEN)
            job = await asking.animate(animatic, CHANNEL_ID)
            process = await start("worker", "--config", config)
            assert process.stderr
            await asyncio.wait_for(makevid.arrived.wait(), timeout=30)

            process.send_signal(signal.SIGTERM)
            while b"stopping" not in await asyncio.wait_for(process.stderr.readline(), timeout=30):
                assert process.returncode is None
            process.send_signal(signal.SIGTERM)
            code = await asyncio.wait_for(process.wait(), timeout=30)
            found = await animatic.store.get(job.id)

    assert code == 1
    assert found
    assert found.state is State.SUBMITTING


async def test_the_gateway_address_comes_from_the_proxy_also_with_given_shards(
    config: Path, discord: DiscordServer
) -> None:
    """discord.py would dial a fixed address when it knows the shard count."""
    config.write_text(config.read_text().replace("[store]", "shard_ids = [1]\nshard_count = 2\n[store]"))

    process = await start("run", "--config", config)
    await asyncio.wait_for(discord.connected.wait(), timeout=30)
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.communicate(), timeout=30)

    assert [identify["shard"] for identify in discord.identified] == [[1, 2]]


async def test_commands_are_sent_only_when_they_changed(config: Path, discord: DiscordServer) -> None:
    """A restart loop must not use up the 200 creations a day."""
    for _ in range(2):
        discord.connected.clear()
        process = await start("run", "--config", config)
        await asyncio.wait_for(discord.connected.wait(), timeout=30)
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), timeout=30)

    assert discord.calls["PUT /applications/…/commands"] == 1


async def test_render_makes_a_clip_without_discord(tmp_path: Path) -> None:
    """The built-in model needs no key."""
    picture, out = tmp_path / "panorama.png", tmp_path / "clip.mp4"
    Image.new("RGB", (480, 120), "teal").save(picture)

    code, said, err = await animatic("render", picture, "pan left", "--out", out, cwd=tmp_path)

    assert code == 0, err
    assert "480×120, 5.0 s, h264" in said
    assert (await clips.probe(out)).codec == "h264"


async def test_render_makes_a_title_card(tmp_path: Path) -> None:
    """Without a picture there is the prompt."""
    code, said, err = await animatic("render", "-", "a title", "--out", tmp_path / "clip.mp4", cwd=tmp_path)

    assert code == 0, err
    assert "5.0 s, h264" in said


async def test_render_tries_a_key(config: Path, tmp_path: Path) -> None:
    """Through the gateway: submit once, poll, download."""
    async with MakevidServer(clip=small_clip()) as makevid:
        config.write_text(
            f"""
            [routes.makevid]
            api_key = "test-key"
            base_url = "{makevid.base_url}"
            first_poll_seconds = 0.1
            [network]
            allow_private_addresses = true
            """
        )
        out = tmp_path / "clip.mp4"

        code, said, err = await animatic(
            "render", DATA / "harbour.jpg", "waves", "--model", "kling", "--out", out, "--config", config,
            cwd=tmp_path,
        )  # fmt: skip

        assert code == 0, err
        assert len(makevid.creates) == 1
    assert out.read_bytes() == small_clip()
    assert "h264" in said


async def test_render_drives_every_route(config: Path, tmp_path: Path) -> None:
    """Each against its server, with a picture where a file can be sent, and with what it heard on the way."""
    async with all_routes(tmp_path) as routes:
        sections = [
            f"[routes.{route}]\n"
            + "\n".join(f"{key} = {json.dumps(value)}" for key, value in section.items())
            for route, section in routes.items()
            if route != "comfyui"
        ]
        local = routes["comfyui"]
        workflow = json.dumps(local["workflows"]["wan"]["file"])
        sections.append(f'[routes.comfyui]\nbase_url = "{local["base_url"]}"\nfirst_poll_seconds = 2')
        sections.append(f"[routes.comfyui.workflows.wan]\nfile = {workflow}")
        config.write_text("\n".join([*sections, "[network]\nallow_private_addresses = true\n"]))

        async def render(model: str, route: str, picture: str | Path) -> None:
            out = tmp_path / f"{model}-out.mp4"
            code, said, err = await animatic(
                "render", picture, "waves", "--model", model, "--out", out, "--config", config, cwd=tmp_path
            )
            assert (code, "h264" in said) == (0, True), (model, said, err)
            assert out.read_bytes() == (tmp_path / f"{route}.mp4").read_bytes()

        harbour = DATA / "harbour.jpg"
        await asyncio.gather(
            render("kling", "makevid", harbour),
            render("kling-3", "kling", harbour),
            render("ray-2", "luma", "-"),  # takes links alone
            render("ray-3-2", "luma_agents", harbour),
            render("runway-turbo", "runway", harbour),
            render("wan", "comfyui", harbour),
        )


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [("401", "did not accept this bot's key"), ("402", "no credit left"), ("500", "did not answer")],
)
async def test_render_says_what_is_wrong_with_a_key(
    fault: str, sentence: str, config: Path, tmp_path: Path
) -> None:
    """One sentence, code 1, one create, no traceback, no key."""
    async with MakevidServer(clip=b"") as makevid:
        makevid.next_create = fault
        config.write_text(
            f'[routes.makevid]\napi_key = "test-key"\nbase_url = "{makevid.base_url}"\n'
            "[network]\nallow_private_addresses = true\n"
        )

        code, _, err = await animatic(
            "render", DATA / "harbour.jpg", "waves", "--model", "kling", "--config", config, cwd=tmp_path
        )

        assert len(makevid.creates) <= 1
    assert code == 1
    assert sentence in err
    assert "test-key" not in err
    assert "Traceback" not in err


@pytest.mark.parametrize("picture", ["nothing.png", "config.toml"])
async def test_render_refuses_what_is_no_picture(picture: str, config: Path, tmp_path: Path) -> None:
    """A missing file and a text file, each in a sentence."""
    code, _, err = await animatic("render", tmp_path / picture, "waves", cwd=tmp_path)

    assert code == 1
    assert "picture" in err.lower()
    assert "Traceback" not in err


@pytest.fixture
async def unsure(config: Path, tmp_path: Path) -> Job:
    """A job in the config's database whose paid call nobody knows the end of."""
    clock = Clock(datetime.now(UTC))
    async with open_store(f"sqlite+aiosqlite:///{(tmp_path / 'jobs.db').as_posix()}") as store:
        world = make_world(store, clock, tmp_path / "data" / "clips")
        world.provider.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))
        job = await world.ask()
        await world.engine.run_due()
        await world.engine.hand_back()
        return await world.now(job)


async def test_jobs_check_says_that_all_is_well(config: Path, unsure: Job) -> None:
    """Exit 0: a doubt is an honest state."""
    code, out, err = await animatic("jobs", "check", "--config", config)

    assert code == 0, err
    assert out == "1 jobs: all is well\n"


async def test_jobs_check_says_what_is_wrong(config: Path, unsure: Job, tmp_path: Path) -> None:
    """Exit 1, one row for each wrong thing: invariant, job, words."""
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as connection, connection:
        connection.execute("UPDATE jobs SET attempt = 2")

    code, out, _ = await animatic("jobs", "check", "--config", config)

    assert code == 1
    assert out.splitlines() == [
        f"I1  {unsure.id}  counts 2 attempts, its history has 1",
        "1 jobs: 1 things are wrong",
    ]


@pytest.mark.parametrize("command", ["check", "unsure"])
async def test_jobs_that_cannot_be_looked_at(command: str, config: Path, tmp_path: Path) -> None:
    """Exit 2, a sentence, and no database is made: 1 would say that something in it is wrong."""
    missing = await animatic("jobs", command, "--config", config)
    made = (tmp_path / "jobs.db").exists()
    config.write_text(
        config.read_text().replace("sqlite+aiosqlite:///", "postgresql+asyncpg://a:b@127.0.0.1:1")
    )
    away = await animatic("jobs", command, "--config", config)

    assert not made
    for code, out, err in (missing, away):
        assert (code, out) == (2, "")
        assert "The database (store.url) cannot be reached" in err
        assert "Traceback" not in err


async def test_jobs_unsure_lists_what_an_operator_needs(config: Path, unsure: Job, tmp_path: Path) -> None:
    """When, who, where, what, how much, under which reference, and a link; nothing when there is none."""
    code, out, _ = await animatic("jobs", "unsure", "--config", config)
    cells = "".join(out.split())

    assert code == 0
    assert f"{unsure.changed_at:%Y-%m-%d%H:%M}" in cells
    for value in (unsure.asker_id, "kling", "makevid", "$0.35", f"{unsure.id}-1"):
        assert str(value) in cells
    assert f"https://discord.com/channels/1/10/{unsure.card_id}" in out

    with closing(sqlite3.connect(tmp_path / "jobs.db")) as connection, connection:
        connection.execute("DELETE FROM jobs")
    assert await animatic("jobs", "unsure", "--config", config) == (0, "No job is unsure.\n", "")
