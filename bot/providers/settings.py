"""What the sections of all routes in the config have in common; each route's file adds its own keys."""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr


class RouteSettings(BaseModel):
    """[routes.<name>]: of any route."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    enabled: bool = Field(default=True, description="false: as if this section were not there")
    slots: int = Field(default=5, ge=1, description="How many clips this route makes for us at the same time")
    first_poll_seconds: float | None = Field(
        default=None,
        gt=0,
        le=600,
        description="Seconds until a new clip is first asked for, at most; unset: as suits the model",
        examples=[10.0],
    )

    @property
    def usual_models(self) -> Mapping[str, str]:
        """What is offered when the config names no models: their names for members, with the route's own."""
        return {}


class WebRouteSettings(RouteSettings):
    """[routes.<name>]: of a route that is asked over HTTP."""

    request_timeout: float = Field(
        default=60, gt=0, le=600, description="Seconds until a request without an answer is given up"
    )
    clip_max_bytes: int = Field(
        default=200 * 1024 * 1024, gt=0, description="The largest clip that is downloaded, in bytes"
    )
    clip_timeout: float = Field(
        default=300, gt=0, le=3600, description="Seconds until a download is given up"
    )


def _key(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be the key alone: printable ASCII without spaces")
    return SecretStr(text)


def _address(value: str) -> str:
    try:
        parts = urlsplit(value)
        secure = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))
        good = secure and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.username or parts.query or parts.fragment:
        raise ValueError("must be an https address (http only on this machine)")
    return value.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _path(value: str) -> str:
    if not re.fullmatch(r"/[\w\-./~]+", value, re.ASCII):
        raise ValueError("must be a path that begins with /")
    return value


Key = Annotated[SecretStr, AfterValidator(_key)]
Address = Annotated[str, AfterValidator(_address)]
UrlPath = Annotated[str, AfterValidator(_path)]
