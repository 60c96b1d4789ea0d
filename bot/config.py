"""`config.toml` and the environment become one frozen, checked `Config`.

Knows what is valid, not what is reachable: no network, no database. Every key has a description, a
default or an example here; `config.example.toml` and the README's table follow them.
"""

import difflib
import json
import math
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from bot.jobs.budgets import Budget, Scope, Stretch, strictest
from bot.providers.comfyui import ComfyUISettings
from bot.providers.kling import KlingSettings
from bot.providers.luma import LumaAgentsSettings, LumaSettings
from bot.providers.makevid import MakevidSettings
from bot.providers.runway import RunwaySettings
from bot.providers.settings import RouteSettings
from bot.providers.sketch import SketchSettings

PREFIX = "ANIMATIC_"
DEFAULT_SLOTS = 5  # of a route that is not configured any more
LARGEST_SECRET = 64 * 1024  # bytes
DATABASES = ("sqlite+aiosqlite", "postgresql+asyncpg")
CALLABLE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
MODEL_NAME = re.compile(r"[a-z0-9_-]{1,32}")


class ConfigError(Exception):
    """The owner can fix it: `str(error)` is the whole message, one line for each mistake."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        count = "a mistake" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes"
        super().__init__("\n".join([f"The configuration has {count}:", *(f"  {m}" for m in self.mistakes)]))


def _web_address(value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise ValueError("must be an http or https address")
    return value.rstrip("/")


def _database(value: SecretStr) -> SecretStr:
    try:
        scheme = make_url(value.get_secret_value()).drivername
    except (ArgumentError, ValueError):
        scheme = ""
    if scheme not in DATABASES:
        raise ValueError(
            f"must be an address that begins with {' or '.join(f'{name}://' for name in DATABASES)}"
        )
    return value


def _each_once(value: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(value)) < len(value):
        raise ValueError("must name each shard once")
    return value


def _model_name(value: str) -> str:
    if not MODEL_NAME.fullmatch(value):
        raise ValueError("a model's name must be 1 to 32 of a-z, 0-9, - and _, for example kling")
    return value


def _numbers(value: object) -> object:
    """`0,1` as well as `[0, 1]`: the former is what people write in the environment."""
    if not isinstance(value, str):
        return value
    return [number for number in re.split(r"[\s,]+", value.strip(" []")) if number]


def _rate(value: object) -> Decimal:
    try:
        rate = Decimal(str(value)) if isinstance(value, int | float | str | Decimal) else Decimal("NaN")
    except InvalidOperation:
        rate = Decimal("NaN")
    if isinstance(value, bool) or not rate.is_finite() or rate < 0:
        raise ValueError("must be a number of 0 or more, or a table of them by quality")
    return rate


def _price(value: object) -> Decimal | dict[str, Decimal]:
    if isinstance(value, Mapping) and value:
        return {str(quality): _rate(rate) for quality, rate in value.items()}
    return _rate(value)


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


ShardIds = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...],
    Field(min_length=1),
    AfterValidator(_each_once),
    BeforeValidator(_numbers),
]
ModelName = Annotated[str, AfterValidator(_model_name)]


Money = Annotated[Decimal, BeforeValidator(_rate)]


class Section(BaseModel):
    """A table of the file. Unknown keys are mistakes, and no error repeats what was read."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class DiscordSettings(Section):
    """[discord]"""

    token: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="The bot's token, from Discord's developer portal, page Bot",
    )
    api_base: Annotated[str, AfterValidator(_web_address)] | None = Field(
        default=None,
        description="Address of a REST proxy such as nirn-proxy, version included; unset: Discord itself",
        examples=["http://127.0.0.1:8080/api/v10"],
    )
    shard_ids: ShardIds | None = Field(
        default=None,
        description="Which shards this process serves, of shard_count; unset: all of them",
        examples=[[0, 1]],
    )
    shard_count: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        validate_default=True,
        description="How many shards there are in all processes together; unset: as Discord advises",
    )

    @field_validator("shard_count")
    @classmethod
    def _shards_fit(cls, count: int | None, info: ValidationInfo) -> int | None:
        ids: tuple[int, ...] | None = info.data.get("shard_ids")
        if ids and count is None:
            raise ValueError(f"must be set where shard_ids is, here to {max(ids) + 1} or more")
        if ids and count is not None and max(ids) >= count:
            raise ValueError(f"must be {max(ids) + 1} or more, because shard_ids has {max(ids)}")
        return count


class StoreSettings(Section):
    """[store]"""

    url: Annotated[SecretStr, AfterValidator(_database)] = Field(
        default=SecretStr("sqlite+aiosqlite:///data/animatic.db"),
        description="The database: one SQLite file, or PostgreSQL for more than one machine",
        examples=["postgresql+asyncpg://animatic:password@localhost/animatic"],
    )


class DataSettings(Section):
    """[data]"""

    folder: Path = Field(
        default=Path("data"), description="Where finished clips wait to be delivered, and sketches are drawn"
    )
    keep_days: int = Field(
        default=7, ge=1, description="How long a clip that could not be posted is kept there"
    )
    forget_servers_after_days: int = Field(
        default=30,
        ge=0,
        description="How long the settings of a server that the bot has left are kept, should it come back",
    )


class RoutesSettings(Section):
    """[routes]: how models are reached, one line a route. A route that is absent is not configured.

    Their order is that of the models on offer when the file has no [models]; of two by one name the first.
    """

    makevid: MakevidSettings | None = Field(default=None, description="The makevid.ai gateway")
    kling: KlingSettings | None = Field(default=None, description="Kling's own API")
    luma: LumaSettings | None = Field(default=None, description="Luma's Dream Machine API")
    luma_agents: LumaAgentsSettings | None = Field(default=None, description="Luma's Agents API")
    runway: RunwaySettings | None = Field(default=None, description="Runway's own API")
    comfyui: ComfyUISettings | None = Field(default=None, description="Models on your own GPU, by ComfyUI")
    sketch: SketchSettings = Field(default=SketchSettings(), description="The built-in route")

    @property
    def configured(self) -> dict[str, RouteSettings]:
        routes: dict[str, RouteSettings | None] = {
            name: getattr(self, name) for name in type(self).model_fields
        }
        return {name: settings for name, settings in routes.items() if settings and settings.enabled}


def _route_name(value: str) -> str:
    if value not in RoutesSettings.model_fields:
        *others, last = map(repr, RoutesSettings.model_fields)
        raise ValueError(f"must be one of {', '.join(others)} or {last}")
    return value


RouteName = Annotated[str, AfterValidator(_route_name)]


class ModelSettings(Section):
    """[models.<name>]: one model that members may choose."""

    route: RouteName = Field(
        description="How the model is reached: the name of one of the routes", examples=["makevid"]
    )
    variant: str | None = Field(
        default=None,
        min_length=1,
        description="The route's own name for the model; unset: the same name",
        examples=["kling"],
    )
    label: str | None = Field(
        default=None,
        min_length=1,
        max_length=80,
        description="What members read; unset: the vendor's name for the model where there is one, else this name as a title",
        examples=["Kling"],
    )
    price: Annotated[Decimal | dict[str, Decimal], BeforeValidator(_price)] | None = Field(
        default=None,
        description="What one second of clip costs you, in money.currency; or a table of that by quality. "
        "Unset: what the vendor's price list says, where there is one and the currency is $",
        examples=[0.07],
    )
    sound_price: Annotated[Decimal, BeforeValidator(_rate)] = Field(
        default=Decimal(0),
        description="What one second costs on top of that when the clip has sound",
        examples=[0.07],
    )
    fallback: RouteName | None = Field(
        default=None,
        description="Another route to the same model, taken while the first is down; "
        "members are offered what both can do",
        examples=["kling"],
    )
    fallback_variant: str | None = Field(
        default=None,
        min_length=1,
        description="That route's name for the model; unset: the same name",
        examples=["kling-2.6"],
    )
    enabled: bool = Field(default=True, description="Whether members may choose it")

    def price_cents(self, seconds: int, quality: str | None, sound: bool = False) -> int:
        """What a clip of so many seconds costs, in cents, rounded up.

        A quality that the table does not name costs as much as its dearest.
        """
        rate = Decimal(0) if self.price is None else self.price
        if isinstance(rate, dict):
            rate = rate.get(quality or "", max(rate.values()))
        return math.ceil((rate + (self.sound_price if sound else 0)) * seconds * 100)


class MoneySettings(Section):
    """[money]"""

    currency: str = Field(
        default="$", min_length=1, max_length=8, description="Stands before every price that members see"
    )


class AnimateSettings(Section):
    """[animate]"""

    default_model: str | None = Field(
        default=None,
        description="The model when a member names none; unset: the first of the models",
        examples=["kling"],
    )
    requeue_emoji: str = Field(
        default="🔁",
        min_length=1,
        max_length=64,
        description="Reacting with it to a clip queues the clip again",
    )
    requeues_per_day: int = Field(
        default=20, ge=1, description="How often one clip may be made again within a day, by all together"
    )
    confirm_above: Annotated[Decimal, BeforeValidator(_rate)] = Field(
        default=Decimal(1),
        description="A reaction to a clip that costs more than this asks back before it starts another",
    )
    active_per_member: int = Field(
        default=3, ge=1, description="The greatest number of unfinished clips of one member"
    )
    active_total: int = Field(default=100, ge=1, description="The greatest number of unfinished clips in all")


def _amount(what: str) -> Any:
    return Field(default=None, description=what, examples=[5])


class LimitsSettings(Section):
    """[limits]: what the owner lets be spent. Days and months are those of UTC."""

    member_clips_per_day: Annotated[int, Field(ge=0)] | None = _amount(
        "Clips of one member in one server, a day"
    )
    member_money_per_day: Money | None = _amount("What those may cost, in money.currency")
    server_money_per_day: Money | None = _amount("What all clips of one server may cost, a day")
    server_money_per_month: Money | None = _amount("What all clips of one server may cost, a month")
    total_money_per_day: Money | None = _amount("What all clips of this bot may cost, a day")
    total_money_per_month: Money | None = _amount("What all clips of this bot may cost, a month")

    def budgets(self) -> tuple[Budget, ...]:
        """As the desk counts them."""

        def cents(money: Decimal | None) -> int | None:
            return None if money is None else int(money * 100)

        day, month = Stretch.DAY, Stretch.MONTH
        return tuple(
            strictest(
                [
                    Budget(
                        scope=Scope.MEMBER,
                        stretch=day,
                        clips=self.member_clips_per_day,
                        cents=cents(self.member_money_per_day),
                    ),
                    Budget(scope=Scope.SERVER, stretch=day, cents=cents(self.server_money_per_day)),
                    Budget(scope=Scope.SERVER, stretch=month, cents=cents(self.server_money_per_month)),
                    Budget(scope=Scope.ALL, stretch=day, cents=cents(self.total_money_per_day)),
                    Budget(scope=Scope.ALL, stretch=month, cents=cents(self.total_money_per_month)),
                ]
            )
        )


class EngineSettings(Section):
    """[engine]"""

    stale_after: float = Field(
        default=30,
        ge=3,
        le=600,
        description="Seconds without a heartbeat until a process is held for dead and its clips are taken over; "
        "the same for all processes",
    )


class CallbacksSettings(Section):
    """[callbacks]"""

    public_url: Annotated[str, AfterValidator(_web_address)] | None = Field(
        default=None,
        description="Where the internet reaches host and port below, through your own https proxy; providers that "
        "can then say when a clip is done. Unset: they are only asked",
        examples=["https://clips.example.org"],
    )
    host: str = Field(default="127.0.0.1", description="Where `animatic run` listens for them")
    port: int = Field(default=8771, ge=0, le=65535, description="The port there")


def _callable_name(value: str) -> str:
    if not CALLABLE.fullmatch(value):
        raise ValueError("must be a module and a function in it, with a colon between")
    return value


class SafetySettings(Section):
    """[safety]"""

    check: Annotated[str, AfterValidator(_callable_name)] | None = Field(
        default=None,
        description="A check of your own, asked before every clip: see docs/safety.md; unset: none",
        examples=["my_checks:look"],
    )
    check_seconds: float = Field(
        default=10, gt=0, le=60, description="Seconds until a check without an answer counts as failed"
    )
    check_failed: Literal["refuse", "allow"] = Field(
        default="refuse", description="What happens to a clip whose check failed: refuse or allow"
    )


class NetworkSettings(Section):
    """[network]"""

    allow_private_addresses: bool = Field(
        default=False,
        description="Fetch clips and pictures from private and plain-http addresses too; only for tests",
    )


class LoggingSettings(Section):
    """[logging]"""

    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = Field(
        default="INFO", description="The least important lines that are written: DEBUG, INFO, WARNING, ERROR"
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="console, json, or auto: console on a terminal, else json"
    )


def _usual_models(routes: Iterable[tuple[str, RouteSettings]]) -> dict[str, dict[str, str]]:
    """The models on offer when the file has no [models], with their routes and the routes' names for them."""
    models: dict[str, dict[str, str]] = {}
    for route, settings in routes:
        for name, variant in settings.usual_models.items():
            models.setdefault(name, {"route": route} | ({"variant": variant} if variant != name else {}))
    return models


def _default_models(data: dict[str, Any]) -> dict[str, ModelSettings]:
    routes = data["routes"] if "routes" in data else RoutesSettings()
    usual = _usual_models(routes.configured.items())
    return {name: ModelSettings.model_validate(model) for name, model in usual.items()}


class Config(BaseSettings):
    """Everything the owner can choose. Sections are tables of the file, attributes are keys."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
    )

    discord: DiscordSettings = DiscordSettings()
    store: StoreSettings = StoreSettings()
    data: DataSettings = DataSettings()
    safety: SafetySettings = SafetySettings()
    network: NetworkSettings = NetworkSettings()
    callbacks: CallbacksSettings = CallbacksSettings()
    logging: LoggingSettings = LoggingSettings()
    money: MoneySettings = MoneySettings()
    limits: LimitsSettings = LimitsSettings()
    engine: EngineSettings = EngineSettings()
    routes: RoutesSettings = RoutesSettings()
    models: dict[ModelName, ModelSettings] = Field(default_factory=_default_models, validate_default=True)
    animate: AnimateSettings = Field(default=AnimateSettings(), validate_default=True)

    @field_validator("models", mode="wrap")
    @classmethod
    def _models_are_reachable(
        cls, value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> dict[str, ModelSettings]:
        """Leaves the models that are switched on. Whether the route has the variant is asked of the route."""
        routes: RoutesSettings | None = info.data.get("routes")
        mistakes: list[str] = []
        models: dict[str, ModelSettings] = {}
        try:
            models = {name: model for name, model in handler(value).items() if model.enabled}
        except ValidationError as error:
            for details in error.errors():
                mistakes += _lines(details, below=("models",))
        else:
            if not models:
                mistakes.append(
                    "models: there is none to choose; set routes.sketch.enabled = true or add one, "
                    'for example [models.kling] with route = "makevid"'
                )
        asked = {name: model.route for name, model in models.items()} or _routes_asked(value)
        mistakes += [
            f'models.{name}.route = "{route}": that route is not configured; {_how_to(route)}'
            for name, route in asked.items()
            if routes and route not in routes.configured
        ]
        if mistakes:
            raise _several(mistakes)
        return models

    @field_validator("animate")
    @classmethod
    def _default_model_exists(cls, animate: AnimateSettings, info: ValidationInfo) -> AnimateSettings:
        models, default = info.data.get("models"), animate.default_model
        if default is not None and models is not None and default not in models:
            known = ", ".join(models)
            raise _several([f"animate.default_model = {_shown(default)}: must be one of the models: {known}"])
        return animate

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """A `Config(...)` made by hand, as by the demo and the tests, is not changed by the environment."""
        return (init_settings,)

    def slots_of(self, route: str) -> int:
        """How many jobs may be at this route at the same time, in all processes together."""
        settings = self.routes.configured.get(route)
        return settings.slots if settings else DEFAULT_SLOTS

    def secrets(self) -> list[str]:
        """Every secret in plain text, for the logs to mask."""
        url = make_url(self.store.url.get_secret_value())
        found = [secret for secret in _secrets_in(self) if secret is not self.store.url]
        return [secret.get_secret_value() for secret in found] + ([str(url.password)] if url.password else [])


class Environment(EnvSettingsSource):
    """`ANIMATIC_SECTION__KEY`. A value that should be JSON and is not is left for validation to name."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        files = _secret_file_names()
        return {name: value for name, value in super()._load_env_vars().items() if name.upper() not in files}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def load(path: Path | None = None) -> Config:
    """The configuration: environment, then secret files, then config.toml, then the defaults.

    The file is `path`, else `ANIMATIC_CONFIG`, else `config.toml` where there is one. Raises ConfigError
    with every mistake found.
    """
    from_file = _read_toml(path)
    mistakes = _misspelt_variables()
    from_secret_files = _read_secret_files(mistakes)
    from_environment = Environment(Config)()
    values = _merged(_merged(from_file, from_secret_files), from_environment)
    if "models" in values and "models" not in from_file:
        usual = {"models": _usual_models(_routes_in(values.get("routes", {})))}
        values = _merged(usual, values)
    odd = [name for name in values if name.startswith("_")]  # pydantic-settings takes these for its own
    mistakes += [f"{name}: there is no such key" for name in odd]
    try:
        config = Config(**{name: value for name, value in values.items() if name not in odd})
    except ValidationError as error:
        mistakes += [line for details in error.errors() for line in _lines(details)]
    if mistakes:
        raise ConfigError(mistakes)
    return config


def _routes_in(routes: object) -> Iterable[tuple[str, RouteSettings]]:
    """The configured routes; where they have mistakes, all there are, so as to report no others instead."""
    try:
        return RoutesSettings.model_validate(routes).configured.items()
    except ValidationError:
        return [(name, settings.model_construct()) for name, settings in route_kinds().items()]


def route_kinds() -> dict[str, type[RouteSettings]]:
    kinds = {name: _table(field.annotation) for name, field in RoutesSettings.model_fields.items()}
    return {name: kind for name, kind in kinds.items() if kind and issubclass(kind, RouteSettings)}


def _read_toml(path: Path | None) -> dict[str, Any]:
    if path is None and (named := os.environ.get(f"{PREFIX}CONFIG")):
        path = Path(named)
    if path is None:
        path = Path("config.toml")
        if not path.exists():
            return {}
    try:
        # utf-8-sig: Windows' editors put a mark before the first character
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"), parse_float=Decimal)
    except UnicodeDecodeError:
        mistake = "is not UTF-8 text; save it as UTF-8"
    except tomllib.TOMLDecodeError as error:
        mistake = f'is not TOML: {error}; a good line is: key = "text"'
    except OSError as error:
        mistake = f"cannot be read: {error.strerror}; copy config.example.toml there, or name another file"
    raise ConfigError([f"{path} {mistake}"])


def _read_secret_files(mistakes: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, loc in _secret_file_names().items():
        # the file's name is never shown: it may be the secret itself, put there by mistake
        given = next((value for key, value in os.environ.items() if key.upper() == name), "")
        if not given:
            continue
        try:
            with Path(given).open("rb") as file:
                content = file.read(LARGEST_SECRET + 1)
            text = content.decode("utf-8-sig").strip()
            wrong = "is larger than 64 KiB" if len(content) > LARGEST_SECRET else "" if text else "is empty"
        except OSError as error:
            text, wrong = "", f"cannot be read: {error.strerror}"
        except UnicodeDecodeError:
            text, wrong = "", "is not UTF-8 text"
        if wrong:
            mistakes.append(
                f"{'.'.join(loc)}: the file that {name} names {wrong}; it must hold the secret alone"
            )
            continue
        values = _merged(values, _nested(loc, text))
    return values


def _secret_file_names() -> dict[str, tuple[str, ...]]:
    """Variables, in capitals, that name a file for a secret key, with that key."""
    names: dict[str, tuple[str, ...]] = {}
    for variable in os.environ:
        name = variable.upper()
        if name.startswith(PREFIX) and name.endswith("_FILE"):
            loc = tuple(name.removeprefix(PREFIX).removesuffix("_FILE").lower().split("__"))
            if _is_secret(_field_at(loc)):
                names[name] = loc
    return names


def _misspelt_variables() -> list[str]:
    """Variables that would be ignored silently, although they look like a key of ours."""
    known: dict[str, str] = {}
    for key in keys():
        if "<" not in key.name:
            variable = _variable(key.name.split("."))
            known[variable] = variable
            if key.secret:
                known[f"{variable}_FILE"] = f"{variable}_FILE"
    squeezed = {name.replace("_", ""): name for name in known}
    mistakes = []
    for variable in os.environ:
        name = variable.upper()
        if not name.startswith(PREFIX) or name in known:
            continue
        section = name.removeprefix(PREFIX).split("__")[0].lower()
        if meant := squeezed.get(name.replace("_", "")):
            mistakes.append(f"{name}: did you mean {meant}? Sections and keys are joined by two _")
        elif "__" in name and section not in Config.model_fields:
            near = difflib.get_close_matches(name, known, 1)
            mistakes.append(
                f"{name}: there is no section {section}" + (f"; did you mean {near[0]}?" if near else "")
            )
    return mistakes


# What the message says. Values of secret keys, of unknown keys and of whole tables are never shown.

_RIGHT = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text in quotes",
    "path_type": "a path in quotes",
    "literal_error": "one of {expected}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "string_too_short": "at least {min_length} character long",
    "string_too_long": "at most {max_length} characters long",
    "too_short": "at least {min_length} long",
    "too_long": "at most {max_length} long",
    "tuple_type": "a list in [ ]",
    "list_type": "a list in [ ]",
    "dict_type": "a table",
    "mapping_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


def _lines(details: ErrorDetails, below: tuple[str, ...] = ()) -> list[str]:
    """What to tell the owner about one of pydantic's errors."""
    kind, loc, context = details["type"], details["loc"], details.get("ctx", {})
    if kind == "several_mistakes":
        return list(context["lines"])
    if kind == "default_factory_not_called":  # which depends on what another line is about
        return []
    names = (*below, *(str(part) for part in loc if not isinstance(part, int)))
    if names[-1] == "[key]":
        return [f"{'.'.join(names[:-1])}: {context['error']}"]
    dotted, field = ".".join(names), _field_at(names)
    if kind == "extra_forbidden":
        return [f"{dotted}: there is no such key{_meant(names)}"]
    if kind == "missing":
        about = f": {field.description}" if field and field.description else ""
        secret = f" (or set {_variable(names)}, or {_variable(names)}_FILE)" if _is_secret(field) else ""
        return [f"{dotted} is missing{about}{secret}{_example(names, field)}"]
    if kind == "value_error":
        right = str(context["error"])
    elif kind in _RIGHT:
        right = f"must be {_RIGHT[kind].format(**context)}"
    else:
        right = details["msg"]
    whole_table = field is None or _table(field.annotation) is not None
    shown = "" if whole_table or _is_secret(field) else f" = {_shown(details['input'])}"
    source = f" (from {variable})" if (variable := _variable(names)) in map(str.upper, os.environ) else ""
    return [f"{dotted}{shown}{source}: {right}{_example(names, field)}"]


def _several(mistakes: list[str]) -> PydanticCustomError:
    return PydanticCustomError("several_mistakes", "several mistakes", {"lines": mistakes})


def _how_to(route: str) -> str:
    if RoutesSettings.model_fields[route].default is not None:
        return f"set routes.{route}.enabled = true"
    if "api_key" not in route_kinds()[route].model_fields:
        return f"add [routes.{route}]"
    return f'add [routes.{route}] with api_key = "…", or set {_variable(["routes", route, "api_key"])}'


def _routes_asked(models: object) -> dict[str, str]:
    """The routes that not yet valid models name, for the checks that need no more."""
    if not isinstance(models, Mapping):
        return {}
    return {
        name: model["route"]
        for name, model in models.items()
        if isinstance(model, Mapping)
        and model.get("route") in RoutesSettings.model_fields
        and model.get("enabled", True)
    }


def _meant(names: tuple[str, ...]) -> str:
    *table, last = names
    siblings = _keys_of_table(tuple(table))
    if elsewhere := [key.name for key in keys() if key.name.split(".")[-1] == last]:
        return f"; did you mean {elsewhere[0]}?"
    if near := difflib.get_close_matches(last, siblings, 1):
        return f"; did you mean {'.'.join([*table, near[0]])}?"
    return f"; there are {', '.join(siblings)}" if siblings else ""


def _example(names: tuple[str, ...], field: FieldInfo | None) -> str:
    if field is None or field.annotation is bool or not names:
        return ""
    good = field.examples[0] if field.examples else field.get_default()
    if good is None or isinstance(good, BaseModel | SecretStr) or "Undefined" in type(good).__name__:
        return ""
    return f", for example {names[-1]} = {_toml(good)}"


def _shown(value: object) -> str:
    """As it would stand in the file, short, without a password in an address."""
    text = re.sub(r"//[^/@\s]*@", "//…@", _toml(value))
    return text if len(text) <= 80 else f"{text[:79]}…"


def _toml(value: object) -> str:
    return str(value) if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=False, default=str)


def _variable(names: Sequence[str]) -> str:
    return PREFIX + "__".join(names).upper()


# The tree of keys, read from the models above.


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the file: its dotted name (`models.<name>.price`), and what is declared for it."""

    name: str
    field: FieldInfo
    secret: bool


def keys() -> Iterator[Key]:
    """Every key there is, in the order of the declarations. Tables are not keys."""
    yield from _keys_below(Config, ())


def _keys_below(model: type[BaseModel], above: tuple[str, ...]) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        table = _table(field.annotation)
        if table is None:
            yield Key(".".join([*above, name]), field, _is_secret(field))
        else:
            named = ("<name>",) if get_origin(field.annotation) is dict else ()
            yield from _keys_below(table, (*above, name, *named))


def _table(annotation: object) -> type[BaseModel] | None:
    """The model behind `Model`, `Model | None` and `dict[str, Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in {dict, Union, UnionType}:
        return next((table for part in get_args(annotation) if (table := _table(part))), None)
    return None


def _field_at(names: tuple[str, ...]) -> FieldInfo | None:
    """What is declared for a key or table; None where nothing is, and for one table of a named kind."""
    model: type[BaseModel] | None = Config
    field: FieldInfo | None = None
    rest = list(names)
    while rest:
        name = rest.pop(0)
        if model is None:
            return field  # inside a list or table that is one key
        field = model.model_fields.get(name)
        if field is None:
            return None
        model = _table(field.annotation)
        if get_origin(field.annotation) is dict and model and rest:
            rest.pop(0)
            if not rest:
                return None
    return field


def _keys_of_table(names: tuple[str, ...]) -> list[str]:
    if not names:
        return list(Config.model_fields)
    field = _field_at((*names, "")) or _field_at(names) or _field_at(names[:-1])
    table = _table(field.annotation) if field else None
    return list(table.model_fields) if table else []


def _is_secret(field: FieldInfo | None) -> bool:
    return field is not None and _names_secret(field.annotation)


def _names_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(_names_secret(part) for part in get_args(annotation))


def _secrets_in(value: object) -> Iterator[SecretStr]:
    if isinstance(value, SecretStr):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets_in(getattr(value, name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _secrets_in(inner)


def _nested(names: tuple[str, ...], value: object) -> dict[str, Any]:
    *above, last = names
    nested: dict[str, Any] = {last: value}
    for name in reversed(above):
        nested = {name: nested}
    return nested


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        merged[name] = _merged(merged[name], value) if both else value
    return merged
