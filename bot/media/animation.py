"""Animated WebP and GIF as clips: FFmpeg reads the one not at all, and neither plays as a video in Discord."""

from fractions import Fraction
from pathlib import Path

import av
from PIL import Image

from bot.media.clip import NotAClip, write_clip

MOST_FRAMES = 3000
LARGEST_SIDE = 4096
LONGEST_FRAME = 10_000  # milliseconds
USUAL_FRAME = 100


def to_clip(source: Path, target: Path) -> None:
    """Write an animation as an mp4 that plays everywhere, whole or not at all. Raises NotAClip.

    Slow, and of hostile bytes: for a worker process.
    """
    try:
        with Image.open(source, formats=("WEBP", "GIF")) as image:
            _write(image, target)
    except NotAClip:
        raise
    except Exception as error:  # decoders raise whatever hostile bytes lead them to
        raise NotAClip(type(error).__name__) from error


def _write(image: Image.Image, target: Path) -> None:
    frames = getattr(image, "n_frames", 1)
    if not 2 <= frames <= MOST_FRAMES or max(image.size) > LARGEST_SIDE:
        raise NotAClip(f"{frames} frames of {image.width}x{image.height}")
    image.load()
    first = _milliseconds(image)
    width, height = (max(2, side // 2 * 2) for side in image.size)
    rate = Fraction(1000, first).limit_denominator(1001)
    with write_clip(target, width=width, height=height, frames_per_second=rate) as writer:
        shown = 0
        for number in range(frames):
            image.seek(number)
            image.load()
            frame = av.VideoFrame.from_image(image.convert("RGB"))  # type: ignore[no-untyped-call]
            frame.pts, frame.time_base = shown, Fraction(1, 1000)
            writer.add(frame)
            shown += _milliseconds(image)


def _milliseconds(image: Image.Image) -> int:
    """How long the frame at hand is shown; a time of nothing is what browsers take for the usual one."""
    told = image.info.get("duration")
    if not isinstance(told, int | float) or not 1 <= told <= LONGEST_FRAME:
        return USUAL_FRAME
    return round(told)
