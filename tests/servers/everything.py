"""All providers at once, on loopback and for nothing: `animatic demo --all-routes`."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from PIL import Image, ImageDraw, ImageFont

from bot.media.clip import write_clip
from tests.servers.comfyui import ComfyUIServer
from tests.servers.kling import KlingServer
from tests.servers.luma import DreamMachineServer, LumaAgentsServer
from tests.servers.makevid import MakevidServer
from tests.servers.runway import RunwayServer

WORKFLOW = Path(__file__).parents[2] / "docs" / "comfyui-workflow.json"
SERVERS: dict[str, Any] = {
    "makevid": MakevidServer,
    "kling": KlingServer,
    "luma": DreamMachineServer,
    "luma_agents": LumaAgentsServer,
    "runway": RunwayServer,
    "comfyui": ComfyUIServer,
}
WIDTH, HEIGHT, SECONDS, RATE = 640, 360, 3, 24


@asynccontextmanager
async def all_routes(folder: Path) -> AsyncIterator[dict[str, dict[str, Any]]]:
    """Start every server; the [routes] section of a config that reaches them. Clips are made in `folder`."""
    async with AsyncExitStack() as stack:
        sections: dict[str, dict[str, Any]] = {}
        for number, (route, server) in enumerate(SERVERS.items()):
            clip = make_clip(folder / f"{route}.mp4", route, hue=number * 360 // len(SERVERS))
            running = await stack.enter_async_context(server(clip=clip, polls_until_done=1))
            # Asked for soon: the demo's clock is the wall's.
            section: dict[str, Any] = {"base_url": running.base_url, "first_poll_seconds": 2}
            if route == "comfyui":
                section["workflows"] = {"wan": {"file": str(WORKFLOW)}}
            else:
                section["api_key"] = running.api_key
            sections[route] = section
        yield sections


def make_clip(path: Path, route: str, *, hue: int) -> bytes:
    """A real mp4 that says which route it came by: a light moves across its colour."""
    font = ImageFont.load_default(36)
    with write_clip(path, width=WIDTH, height=HEIGHT, frames_per_second=Fraction(RATE)) as writer:
        for number in range(SECONDS * RATE):
            image = Image.new("RGB", (WIDTH, HEIGHT), f"hsl({hue}, 45%, 25%)")
            draw = ImageDraw.Draw(image)
            across = WIDTH * number // (SECONDS * RATE)
            draw.ellipse((across - 60, 60, across + 60, 180), fill=f"hsl({hue}, 80%, 70%)")
            draw.text((WIDTH // 2, 260), f"pretended by {route}", fill="white", font=font, anchor="mm")
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            writer.add(frame)
    return path.read_bytes()
