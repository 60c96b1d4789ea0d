"""The config: what it takes, in which order, and what its owner is told."""

import os
import re
import shutil
import tomllib
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from bot.__main__ import ADAPTERS, build_menu, open_providers
from bot.config import (
    Config,
    ConfigError,
    DiscordSettings,
    ModelSettings,
    RoutesSettings,
    StoreSettings,
    keys,
    load,
)
from bot.jobs.models import Way

ROUTES = list(RoutesSettings.model_fields)
EXAMPLE = Path(__file__).parent.parent / "config.example.toml"
TOKEN = "MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ.not-really-a-token-at-all-00"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("ANIMATIC_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def written(text: str, name: str = "config.toml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def mistakes(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(written(text))
    return caught.value.mistakes


# Where it comes from


def test_nothing_needs_to_be_set() -> None:
    """Without a file and without variables there is the sketch model, an SQLite file, and no token."""
    config = load()

    assert list(config.models) == ["sketch"]
    assert config.store.url.get_secret_value() == "sqlite+aiosqlite:///data/animatic.db"
    assert config.discord.token is None
    assert config.routes.makevid is None


def test_config_toml_in_the_working_folder_is_read() -> None:
    """A `config.toml` in the working folder needs no naming."""
    written("[animate]\nactive_total = 7")

    assert load().animate.active_total == 7


def test_a_variable_names_another_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """ANIMATIC_CONFIG goes before the file in the working folder."""
    written("[animate]\nactive_total = 7")
    monkeypatch.setenv("ANIMATIC_CONFIG", str(written("[animate]\nactive_total = 8", "other.toml")))

    assert load().animate.active_total == 8


def test_a_named_file_goes_before_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """--config goes before ANIMATIC_CONFIG."""
    monkeypatch.setenv("ANIMATIC_CONFIG", "nowhere.toml")

    assert load(written("[animate]\nactive_total = 9", "mine.toml")).animate.active_total == 9


def test_the_environment_goes_before_a_secret_file_and_that_before_the_toml(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Precedence is environment, secret file, config.toml, default."""
    written('[discord]\ntoken = "from toml"')
    Path("secret").write_text("from file\n")

    def token() -> str:
        found = load().discord.token
        assert found is not None
        return found.get_secret_value()

    assert token() == "from toml"
    monkeypatch.setenv("ANIMATIC_DISCORD__TOKEN_FILE", "secret")
    assert token() == "from file"
    monkeypatch.setenv("ANIMATIC_DISCORD__TOKEN", "from environment")
    assert token() == "from environment"


def test_variables_reach_into_tables_of_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Routes, models, slots and a price by quality can all be set in the environment, in any case."""
    monkeypatch.setenv("ANIMATIC_ROUTES__MAKEVID__API_KEY", "a-key")
    monkeypatch.setenv("ANIMATIC_MODELS__KLING__PRICE", "0.07")
    monkeypatch.setenv("animatic_models__luma__price__pro", "0.1")
    monkeypatch.setenv("ANIMATIC_ROUTES__MAKEVID__SLOTS", "9")
    monkeypatch.setenv("ANIMATIC_DISCORD__SHARD_IDS", "0, 1")
    monkeypatch.setenv("ANIMATIC_DISCORD__SHARD_COUNT", "2")

    config = load()

    assert config.models["kling"].price == Decimal("0.07")
    assert config.models["luma"].price == {"pro": Decimal("0.1")}
    assert config.slots_of("makevid") == 9
    assert config.discord.shard_ids == (0, 1)


def test_a_variable_changes_one_of_the_usual_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file has no models, a variable changes the usual ones and drops none."""
    monkeypatch.setenv("ANIMATIC_ROUTES__MAKEVID__API_KEY", "a-key")
    monkeypatch.setenv("ANIMATIC_MODELS__LUMA__ENABLED", "false")

    assert list(load().models) == ["kling", "runway", "sketch"]


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files pass on variables that are empty; that changes nothing."""
    monkeypatch.setenv("ANIMATIC_ANIMATE__ACTIVE_TOTAL", "")
    monkeypatch.setenv("ANIMATIC_DISCORD__TOKEN_FILE", "")

    assert load() == Config()


def test_a_config_made_by_hand_ignores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo cannot be led to a real database or a paid route by a variable."""
    monkeypatch.setenv("ANIMATIC_ROUTES__MAKEVID__API_KEY", "a-key")

    assert Config().routes.makevid is None


def test_other_programs_variables_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that merely begins like ours is not a mistake."""
    monkeypatch.setenv("ANIMATIC_IMAGE_TAG", "latest")

    assert load() == Config()


def test_a_file_from_a_windows_editor_is_read() -> None:
    """The mark that some editors put before the first character is no mistake."""
    Path("config.toml").write_bytes(b"\xef\xbb\xbf[animate]\r\nactive_total = 7\r\n")

    assert load().animate.active_total == 7


def test_it_is_frozen() -> None:
    """Nothing changes the config after the start."""
    with pytest.raises(ValidationError, match="frozen"):
        load().animate.active_total = 5  # type: ignore[misc]


# The models


def test_with_a_key_the_gateways_models_come_first() -> None:
    """With makevid configured, and no models named, Kling is the first choice and sketch the last."""
    config = load(written('[routes.makevid]\napi_key = "a-key"'))

    assert [(name, model.route) for name, model in config.models.items()] == [
        ("kling", "makevid"),
        ("luma", "makevid"),
        ("runway", "makevid"),
        ("sketch", "sketch"),
    ]


def test_a_kling_key_offers_the_models_of_its_standard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their names for members are the same under both standards, where both have the model."""
    monkeypatch.setenv("ANIMATIC_ROUTES__KLING__API_KEY", "a-key")

    new = load(written("[routes.sketch]\nenabled = false")).models
    legacy = load(written('[routes.kling]\nstandard = "legacy"\n[routes.sketch]\nenabled = false')).models

    assert list(new) == ["kling-3", "kling-3-turbo", "kling-2-6", "kling-2-5-turbo"]
    assert list(legacy) == ["kling-3", "kling-2-6", "kling-2-5-turbo"]
    assert (new["kling-3"].variant, legacy["kling-3"].variant) == ("kling-3.0", "kling-v3")


def test_models_keep_the_order_of_the_file() -> None:
    """The first model of the file is the default choice, so the order must hold."""
    config = load(written('[models.b]\nroute = "sketch"\n[models.a]\nroute = "sketch"'))

    assert list(config.models) == ["b", "a"]


def test_a_model_switched_off_is_gone_and_need_not_be_reachable() -> None:
    """`enabled = false` takes a model from the menu, even one whose route is not configured."""
    config = load(
        written('[models.kling]\nroute = "makevid"\nenabled = false\n[models.sketch]\nroute = "sketch"')
    )

    assert list(config.models) == ["sketch"]


TWO_WAYS_TO_KLING = """
[routes.makevid]
api_key = "one"
[routes.kling]
api_key = "two"
[models.kling]
route = "makevid"
fallback = "kling"
fallback_variant = "kling-2.6"
price = { "720p" = 0.042, "1080p" = 0.07 }
"""


async def test_kling_itself_can_stand_in_for_the_gateway() -> None:
    """Members are offered what both can do: the same lengths, qualities and shapes, without the gateway's cameras."""
    config = load(written(TWO_WAYS_TO_KLING))

    with ThreadPoolExecutor(1) as pool:
        async with open_providers(config, pool) as providers:
            kling = build_menu(config, providers).models["kling"]

    assert kling.fallback == Way(route="kling", variant="kling-2.6")
    assert (kling.can.seconds, kling.can.qualities) == ((5, 10), ("720p", "1080p"))
    assert kling.can.ratios == ("16:9", "9:16", "1:1")
    assert (kling.can.cameras, kling.can.strength) == ((), None)


@pytest.mark.parametrize(
    ("model", "price", "says"), [("kling", "std = 1", "720p, 1080p"), ("luma", "pro = 1", "one price")]
)
async def test_a_price_for_a_quality_that_is_not_there(model: str, price: str, says: str) -> None:
    """Else every clip of that model would silently cost as much as the dearest."""
    config = load(
        written(
            f'[routes.makevid]\napi_key = "one"\n[models.{model}]\nroute = "makevid"\nprice = {{ {price} }}'
        )
    )

    with ThreadPoolExecutor(1) as pool:
        async with open_providers(config, pool) as providers:
            with pytest.raises(ConfigError, match=says):
                build_menu(config, providers)


@pytest.mark.parametrize(
    ("price", "seconds", "quality", "cents"),
    [
        ("0", 5, None, 0),
        ("0.07", 5, "std", 35),
        ("0.07", 10, None, 70),
        ("0.042", 5, "std", 21),
        ("0.0421", 5, "std", 22),
        ("{std = 0.042, pro = 0.07}", 10, "std", 42),
        ("{std = 0.042, pro = 0.07}", 10, "pro", 70),
        ("{std = 0.042, pro = 0.07}", 10, None, 70),
        ("{std = 0.042, pro = 0.07}", 10, "ultra", 70),
    ],
)
def test_a_price_is_in_whole_cents_rounded_up(
    price: str, seconds: int, quality: str | None, cents: int
) -> None:
    """No dust of binary fractions; a quality without a price costs as much as the dearest."""
    config = load(written(f'[models.sketch]\nroute = "sketch"\nprice = {price}'))

    assert config.models["sketch"].price_cents(seconds, quality) == cents


def test_a_route_without_slots_of_its_own_has_five() -> None:
    """A route that is no longer configured is no reason to stand still."""
    assert Config().slots_of("another") == 5


def test_a_route_switched_off_is_as_if_it_were_not_there() -> None:
    """Its key may stay in the file; its models are not offered."""
    config = load(written('[routes.makevid]\nenabled = false\napi_key = "a-key"'))

    assert list(config.routes.configured) == list(config.models) == ["sketch"]


def test_every_route_of_the_config_has_an_adapter() -> None:
    """One line in RoutesSettings, one in ADAPTERS: a route that has only one of them does not work."""
    assert list(ADAPTERS) == list(RoutesSettings.model_fields)


# What the owner is told


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "[animate]\nactive_total = 0",
            "animate.active_total = 0: must be at least 1, for example active_total = 100",
        ),
        (
            '[animate]\nactive_total = "many"',
            'animate.active_total = "many": must be a whole number, for example active_total = 100',
        ),
        (
            "[network]\nallow_private_addresses = 3",
            "network.allow_private_addresses = 3: must be true or false",
        ),
        (
            '[logging]\nlevel = "LOUD"',
            "logging.level = \"LOUD\": must be one of 'DEBUG', 'INFO', 'WARNING' or 'ERROR', "
            'for example level = "INFO"',
        ),
        (
            '[discord]\napi_base = "ftp://proxy"',
            'discord.api_base = "ftp://proxy": must be an http or https address, '
            'for example api_base = "http://127.0.0.1:8080/api/v10"',
        ),
        (
            "[discord]\nshard_ids = [0]",
            "discord.shard_count = null: must be set where shard_ids is, here to 1 or more",
        ),
        (
            "[discord]\nshard_ids = [0, 4]\nshard_count = 4",
            "discord.shard_count = 4: must be 5 or more, because shard_ids has 4",
        ),
        (
            "[discord]\nshard_ids = [1, 1]\nshard_count = 4",
            "discord.shard_ids = [1, 1]: must name each shard once, for example shard_ids = [0, 1]",
        ),
        (
            "[discord]\nshard_cuont = 4",
            "discord.shard_cuont: there is no such key; did you mean discord.shard_count?",
        ),
        (
            '[models.kling]\nroute = "makevideo"',
            'models.kling.route = "makevideo": must be one of '
            f'{", ".join(map(repr, ROUTES[:-1]))} or {ROUTES[-1]!r}, for example route = "makevid"',
        ),
        ("[dicsord]", "dicsord: there is no such key; did you mean discord?"),
        ('token = "x"', "token: there is no such key; did you mean discord.token?"),
        ('_env_file = "x"', "_env_file: there is no such key"),
        (
            "[routes.makevid]",
            "routes.makevid.api_key is missing: The key of your makevid.ai account "
            "(or set ANIMATIC_ROUTES__MAKEVID__API_KEY, or ANIMATIC_ROUTES__MAKEVID__API_KEY_FILE)",
        ),
        (
            '[routes.kling]\nstandard = "legacy"',
            "routes.kling: api_key is missing: the API key of your Kling account",
        ),
        (
            '[models.kling]\nroute = "makevid"',
            'models.kling.route = "makevid": that route is not configured; add [routes.makevid] with '
            'api_key = "…", or set ANIMATIC_ROUTES__MAKEVID__API_KEY',
        ),
        (
            '[routes.sketch]\nenabled = false\n[models.sketch]\nroute = "sketch"',
            'models.sketch.route = "sketch": that route is not configured; set routes.sketch.enabled = true',
        ),
        (
            "[routes.sketch]\nenabled = false",
            "models: there is none to choose; set routes.sketch.enabled = true or add one, "
            'for example [models.kling] with route = "makevid"',
        ),
        (
            '[models.Sketch]\nroute = "sketch"',
            "models.Sketch: a model's name must be 1 to 32 of a-z, 0-9, - and _, for example kling",
        ),
        (
            '[models.sketch]\nroute = "sketch"\nprice = -1',
            "models.sketch.price = -1: must be a number of 0 or more, or a table of them by quality, "
            "for example price = 0.07",
        ),
        (
            '[animate]\ndefault_model = "kling"',
            'animate.default_model = "kling": must be one of the models: sketch',
        ),
    ],
)
def test_a_mistake_names_key_value_and_what_would_be_right(text: str, line: str) -> None:
    """One line for each mistake, which can be put right without looking anything up."""
    assert line in mistakes(text)


def test_all_mistakes_are_told_at_once() -> None:
    """Nobody mends a config one start at a time, whichever sections the mistakes are in."""
    found = mistakes(
        '[discord]\ntoken = 5\napi_base = "x"\n'
        '[models.a]\nroute = "makevid"\n[models.b]\nroute = "sketch"\nprice = "much"\n'
        "[engine]\nstale_after = 0\n[nonsense]\n"
    )

    assert [line.split(" ")[0].rstrip(":") for line in found] == [
        "discord.token",
        "discord.api_base",
        "engine.stale_after",
        "models.b.price",
        "models.a.route",
        "nonsense",
    ]


def test_the_error_is_the_whole_message() -> None:
    """`str(error)` is what the command line prints: a heading and one line for each mistake."""
    with pytest.raises(ConfigError) as caught:
        load(written("[animate]\nactive_total = 0\nactive_per_member = 0"))

    assert str(caught.value).splitlines() == [
        "The configuration has 2 mistakes:",
        "  animate.active_per_member = 0: must be at least 1, for example active_per_member = 3",
        "  animate.active_total = 0: must be at least 1, for example active_total = 100",
    ]


def test_a_mistake_from_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner should not search the file for a value that is not there."""
    monkeypatch.setenv("ANIMATIC_ANIMATE__ACTIVE_TOTAL", "many")

    with pytest.raises(
        ConfigError, match=r'active_total = "many" \(from ANIMATIC_ANIMATE__ACTIVE_TOTAL\): must be'
    ):
        load()


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("ANIMATIC_DISCORD_TOKEN", "ANIMATIC_DISCORD__TOKEN"),
        ("ANIMATIC_DISCORD_TOKEN_FILE", "ANIMATIC_DISCORD__TOKEN_FILE"),
        ("ANIMATIC_DICSORD__TOKEN", "ANIMATIC_DISCORD__TOKEN"),
        ("ANIMATIC_DISCORD__TOKN", "discord.token"),
    ],
)
def test_a_misspelt_variable_is_not_passed_over(
    variable: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that looks like one of ours and is none would otherwise be ignored silently."""
    monkeypatch.setenv(variable, TOKEN)

    with pytest.raises(ConfigError) as caught:
        load()

    assert f"did you mean {meant}?" in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_syntax_error_names_its_line() -> None:
    """A file that is not TOML is told with the line to look at."""
    (line,) = mistakes("[discord]\ntoken = abc\n")

    assert line.startswith("config.toml is not TOML:")
    assert "at line 2" in line


@pytest.mark.parametrize("kind", ["missing", "folder", "latin-1"])
def test_an_unreadable_file_is_a_mistake(kind: str) -> None:
    """A file that was named and cannot be read is never passed over."""
    path = Path("named.toml")
    if kind == "folder":
        path.mkdir()
    elif kind == "latin-1":
        path.write_bytes("# caf\xe9".encode("latin-1"))

    with pytest.raises(ConfigError, match=r"named\.toml (cannot be read|is not UTF-8 text)"):
        load(path)


@pytest.mark.parametrize("content", [None, b"", b"  \n", b"x" * 70_000, b"\xff\xfe"])
def test_an_unusable_secret_file_is_a_mistake(content: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, empty, far too large and not text: each is told by key and variable, not by content."""
    if content is not None:
        Path("secret").write_bytes(content)
    monkeypatch.setenv("ANIMATIC_DISCORD__TOKEN_FILE", "secret")

    with pytest.raises(
        ConfigError, match=r"discord\.token: the file that ANIMATIC_DISCORD__TOKEN_FILE names"
    ):
        load()


def test_only_secrets_are_read_from_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """`…_FILE` behind a key that is no secret is a mistake like any unknown key."""
    monkeypatch.setenv("ANIMATIC_DISCORD__API_BASE_FILE", "secret")

    with pytest.raises(ConfigError, match=r"discord\.api_base_file: there is no such key"):
        load()


# Secrets


@pytest.mark.parametrize(
    "text",
    [
        "token = '{}'",
        "[discord]\ntokn = '{}'",
        "[discord]\ntoken = ['{}']",
        "discord = '{}'",
        "[routes.kling]\napi_key = ' {} {} '",
        "[routes.kling]\nsecret_key = '{}'",
        "[routes.kling]\nwebhook_secret = '{}'",
        "[routes.makevid]\nkey = '{}'",
        "[routes.makevid]\napi_key = ' {} {} '",
        "routes = '{}'",
        "[routes.makevid]\napi_key = ['{}']",
        "[routes.makevid]\napi_key = 'x'\nbase_url = 'ftp://me:{}@host'",
        "[store]\nurl = 'mysql://me:{}@host/animatic'",
        "[store]\nurl = '{}'",
        "[discord]\napi_base = 'ftp://me:{}@proxy'",
        "models = '{}'",
    ],
)
def test_a_message_never_repeats_a_secret(text: str) -> None:
    """Whatever stands where a secret may have been meant is not shown: messages end up in questions."""
    for line in mistakes(text.replace("{}", TOKEN)):
        assert TOKEN not in line


def test_a_token_given_for_a_file_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who puts the token itself into `…_FILE` should not find it in a log."""
    monkeypatch.setenv("ANIMATIC_DISCORD__TOKEN_FILE", TOKEN)

    with pytest.raises(ConfigError) as caught:
        load()

    assert TOKEN not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_config_prints_without_its_secrets() -> None:
    """A config in a log line or a traceback shows no token, key or database password."""
    config = load(
        written(
            f"[discord]\ntoken = '{TOKEN}'\n[routes.makevid]\napi_key = '{TOKEN}'\n"
            f"[store]\nurl = 'postgresql+asyncpg://me:{TOKEN}@host/animatic'"
        )
    )

    assert TOKEN not in repr(config)
    assert TOKEN not in str(config)
    assert TOKEN not in config.model_dump_json()


def test_the_logs_are_told_every_secret() -> None:
    """`secrets()` are the token, the keys, and the password out of the database's address."""
    config = load(
        written(
            "[discord]\ntoken = 'the-token'\n[routes.makevid]\napi_key = 'the-key'\n"
            "[routes.kling]\napi_key = 'one'\naccess_key = 'two'\nsecret_key = 'three'\n"
            "[store]\nurl = 'postgresql+asyncpg://me:the-password@host/animatic'"
        )
    )

    assert sorted(config.secrets()) == ["one", "the-key", "the-password", "the-token", "three", "two"]
    assert Config().secrets() == []


# The example


def uncommented() -> str:
    return re.sub(r"(?m)^#(?=[\w\[])", "", EXAMPLE.read_text(encoding="utf-8"))


def test_the_example_as_it_stands_is_the_default() -> None:
    """Copying the example changes nothing."""
    assert load(EXAMPLE) == Config()


def test_the_example_is_valid_without_its_comment_signs() -> None:
    """Every line of the example can be used as it is, once the workflow that it names is there."""
    shutil.copy(EXAMPLE.parent / "docs" / "comfyui-workflow.json", "wan.json")
    config = load(written(uncommented()))

    assert list(config.models) == ["kling"]


def test_the_example_names_every_key_with_its_default() -> None:
    """A key that is not in the example does not exist for its readers; a wrong default misleads."""
    example = tomllib.loads(uncommented())
    for key in keys():
        table = example
        *above, last = (
            key.name.replace("workflows.<name>", "workflows.wan").replace("<name>", "kling").split(".")
        )
        for name in above:
            table = table[name]
        assert last in table, key.name
        default = key.field.get_default()
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        if default is not None and not key.field.is_required():
            default = list(default) if isinstance(default, tuple) else default
            assert table[last] == (str(default) if isinstance(default, Path) else default), key.name


def test_every_key_is_described() -> None:
    """Documentation is made from the descriptions."""
    assert [key.name for key in keys() if not key.field.description] == []


def test_a_config_can_be_made_of_parts() -> None:
    """Tests and the demo build theirs without a file."""
    config = Config(
        discord=DiscordSettings(token=SecretStr("x"), shard_count=1),
        store=StoreSettings(url=SecretStr("sqlite+aiosqlite:///here.db")),
        routes=RoutesSettings(),
        models={"quick": ModelSettings(route="sketch", label="Quick")},
    )

    assert config.models["quick"].label == "Quick"
