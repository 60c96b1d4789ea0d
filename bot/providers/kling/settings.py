"""[routes.kling]: the keys, and which of Kling's two standards is used."""

import base64
import binascii
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from bot.providers.settings import Address, Key, WebRouteSettings


def _webhook_secret(value: SecretStr) -> SecretStr:
    try:
        good = bool(webhook_key(value))
    except (binascii.Error, ValueError):
        good = False
    if not good:
        raise ValueError("must be as Kling's console shows it: whsec_ and base64")
    return value


def webhook_key(secret: SecretStr) -> bytes:
    """What callbacks are signed with."""
    return base64.b64decode(secret.get_secret_value().strip().removeprefix("whsec_"), validate=True)


class KlingSettings(WebRouteSettings):
    """[routes.kling]"""

    api_key: Key | None = Field(
        default=None, description="The API key of your Kling account, from kling.ai/dev/api-key"
    )
    standard: Literal["new", "legacy"] = Field(
        default="new", description="Which of Kling's two APIs is asked: new, or legacy for its older models"
    )
    access_key: Key | None = Field(
        default=None, description="For legacy without an API key: the access key of your account"
    )
    secret_key: Key | None = Field(default=None, description="The secret key that belongs to the access key")
    webhook_secret: Annotated[SecretStr, AfterValidator(_webhook_secret)] | None = Field(
        default=None,
        description="What Kling signs its callbacks with, if you made one in its console; unset: not checked",
    )
    base_url: Address = Field(
        default="https://api-singapore.klingai.com",
        description="Where Kling answers; in mainland China https://api-beijing.klingai.com",
    )

    @model_validator(mode="after")
    def _has_its_keys(self) -> Self:
        if bool(self.access_key) != bool(self.secret_key):
            raise ValueError("access_key and secret_key are set together or not at all")
        if not self.api_key and not self.access_key:
            raise ValueError("api_key is missing: the API key of your Kling account")
        if not self.api_key and self.standard == "new":
            raise ValueError(
                'access_key and secret_key serve standard = "legacy" alone; set that, or api_key instead'
            )
        return self

    @property
    def usual_models(self) -> dict[str, str]:
        if self.standard == "legacy":
            return {"kling-3": "kling-v3", "kling-2-6": "kling-v2-6", "kling-2-5-turbo": "kling-v2-5-turbo"}
        return {
            "kling-3": "kling-3.0",
            "kling-3-turbo": "kling-3.0-turbo",
            "kling-2-6": "kling-2.6",
            "kling-2-5-turbo": "kling-2.5-turbo",
        }
