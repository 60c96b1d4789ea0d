"""Animated WebP and GIF become clips."""

from pathlib import Path

import pytest
from PIL import Image

from bot.media.animation import to_clip
from bot.media.clip import NotAClip, probe


def animation(path: Path, *, frames: int = 8, size: tuple[int, int] = (65, 48), duration: int = 125) -> Path:
    images = [Image.new("RGB", size, (number * 30, 80, 200 - number * 20)) for number in range(frames)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=duration)
    return path


@pytest.mark.parametrize("ending", ["webp", "gif"])
async def test_an_animation_becomes_a_clip_as_long(tmp_path: Path, ending: str) -> None:
    """With even sides, and at the speed it had."""
    target = tmp_path / "clip.mp4"

    to_clip(animation(tmp_path / f"a.{ending}"), target)

    facts = await probe(target)
    assert facts.plays_everywhere
    assert (facts.width, facts.height) == (64, 48)
    assert facts.seconds == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("ending", ["webp", "gif"])
async def test_frames_without_a_time_are_shown_for_the_usual_one(tmp_path: Path, ending: str) -> None:
    """As browsers do; nothing is divided by zero."""
    target = tmp_path / "clip.mp4"

    to_clip(animation(tmp_path / f"a.{ending}", duration=0), target)

    assert (await probe(target)).seconds == pytest.approx(0.8, abs=0.15)


@pytest.mark.parametrize("content", [b"", b"RIFF\0\0\0\0WEBPVP8 ", b"GIF89a", b"<html>"])
def test_what_is_no_animation(tmp_path: Path, content: bytes) -> None:
    """Nothing is left behind."""
    source = tmp_path / "a"
    source.write_bytes(content)

    with pytest.raises(NotAClip):
        to_clip(source, tmp_path / "clip.mp4")

    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("ending", ["webp", "gif", "png"])
def test_a_still_picture_is_no_clip(tmp_path: Path, ending: str) -> None:
    """One frame does not move."""
    source = tmp_path / f"a.{ending}"
    Image.new("RGB", (64, 64)).save(source)

    with pytest.raises(NotAClip):
        to_clip(source, tmp_path / "clip.mp4")


def test_half_of_a_file_is_no_clip(tmp_path: Path) -> None:
    """Cut short on the way: nothing is posted of it."""
    source = animation(tmp_path / "a.webp", size=(320, 240))
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])

    with pytest.raises(NotAClip):
        to_clip(source, tmp_path / "clip.mp4")

    assert list(tmp_path.iterdir()) == [source]
