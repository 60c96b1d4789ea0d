"""What the tests of all routes share: a tiny clip, pictures, and the bot's one session."""

import io
from collections.abc import AsyncIterator

import aiohttp
import av
import pytest
from PIL import Image

from bot.providers.base import Picture
from bot.providers.http import open_http
from tests.servers.makevid import MakevidServer


@pytest.fixture(scope="session")
def clip() -> bytes:
    """A real mp4: ten frames of 64×64, H.264."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for shade in range(0, 250, 25):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 64), (shade, 80, 160)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_http() as session:
        yield session


@pytest.fixture
async def makevid(clip: bytes) -> AsyncIterator[MakevidServer]:
    async with MakevidServer(clip=clip) as server:
        yield server


def picture(
    width: int = 320,
    height: int = 320,
    *,
    kind: str = "PNG",
    link: str | None = "https://cdn.invalid/a.png?ex=1",
) -> Picture:
    """A normalised picture, with a signed link to it."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 120, 40)).save(file, kind)
    return Picture(
        data=file.getvalue(),
        media_type=f"image/{kind.lower()}",
        width=width,
        height=height,
        link=link,
    )
