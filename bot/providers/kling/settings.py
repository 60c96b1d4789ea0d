"""[routes.kling]: the keys, and which of Kling's two standards is used."""

import base64
import binascii
from ipaddress import ip_address
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator


def _key(value: SecretStr | None) -> SecretStr | None:
    if value is None:
        return None
    text = value.get_secret_value().strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be the key alone: printable ASCII without spaces")
    return SecretStr(text)


def _base(value: str) -> str:
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


def _webhook_secret(value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        try:
            good = bool(webhook_key(value))
        except (binascii.Error, ValueError):
            good = False
        if not good:
            raise ValueError("must be as Kling's console shows it: whsec_ and base64")
    return value


def webhook_key(secret: SecretStr) -> bytes:
    return base64.b64decode(secret.get_secret_value().strip().removeprefix("whsec_"), validate=True)


Key = Annotated[SecretStr | None, AfterValidator(_key)]


class KlingSettings(BaseModel):
    """[routes.kling]"""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    api_key: Key = Field(default=None, description="The API key of your Kling account, from its console")
    standard: Literal["new", "legacy"] = Field(
        default="new", description='Which of Kling\'s two APIs is used; "legacy" for the older models'
    )
    access_key: Key = Field(
        default=None, description="For legacy without an API key: the access key of your account"
    )
    secret_key: Key = Field(default=None, description="The secret key that belongs to the access key")
    webhook_secret: Annotated[SecretStr | None, AfterValidator(_webhook_secret)] = Field(
        default=None,
        description="The secret that Kling signs callbacks with, where its console has one; unset: not checked",
    )
    base_url: Annotated[str, AfterValidator(_base)] = Field(
        default="https://api-singapore.klingai.com",
        description="Where Kling answers; in mainland China https://api-beijing.klingai.com",
    )
    request_timeout: float = Field(
        default=60, gt=0, le=600, description="Seconds until a request without an answer is given up"
    )
    clip_max_bytes: int = Field(
        default=200 * 1024 * 1024, gt=0, description="The largest clip that is downloaded, in bytes"
    )
    clip_timeout: float = Field(
        default=300, gt=0, le=3600, description="Seconds until a download is given up"
    )

    @model_validator(mode="after")
    def _has_its_keys(self) -> Self:
        if bool(self.access_key) != bool(self.secret_key):
            raise ValueError("access_key and secret_key are set together or not at all")
        if not self.api_key and self.standard == "new":
            raise ValueError(
                'api_key is missing; access_key and secret_key serve only standard = "legacy"'
                if self.access_key
                else "api_key is missing: the API key of your Kling account, from its console"
            )
        if not self.api_key and not self.access_key:
            raise ValueError("api_key is missing (or access_key and secret_key)")
        return self
