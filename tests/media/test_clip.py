"""What a clip is, and how it is brought to one that Discord plays and takes."""

import errno
import io
import math
import os
from array import array
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import av
import pytest
from PIL import Image

from bot.media.clip import CannotFit, NotAClip, fit, last_frame, probe, write_clip

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


def make(
    path: Path,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    size: tuple[int, int] = (320, 240),
    frames: int = 24,
    busy: bool = False,
    sound: bool = False,
    fast_start: bool = True,
    rate: int = 24,
) -> Path:
    """A clip as a provider might send it; `busy` is noise that hardly compresses."""
    options = {"movflags": "+faststart"} if fast_start and path.suffix == ".mp4" else {}
    with av.open(path, "w", options=options) as output:
        video = output.add_stream(codec, rate=rate)
        video.width, video.height, video.pix_fmt = *size, pixel_format
        video.bit_rate = 6_000_000 if busy else 300_000
        audio = output.add_stream("aac", rate=44_100, layout="mono") if sound else None
        for number in range(frames):
            image = Image.new("RGB", size, (number * 5 % 255, 90, 160))
            if busy:
                image = Image.effect_noise(size, 90).convert("RGB")
            output.mux(video.encode(av.VideoFrame.from_image(image)))
        output.mux(video.encode(None))
        if audio is not None:
            for start in range(0, 44_100 * frames // rate, 1024):
                tone = array("f", (math.sin((start + n) / 16) / 4 for n in range(1024)))
                frame = av.AudioFrame("fltp", "mono", 1024)
                frame.planes[0].update(tone.tobytes())
                frame.sample_rate, frame.pts, frame.time_base = 44_100, start, Fraction(1, 44_100)
                output.mux(audio.encode(frame))
            output.mux(audio.encode(None))
    return path


def streams(path: Path) -> list[str]:
    with av.open(path) as clip:
        return [stream.codec_context.name for stream in clip.streams]


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def flat_frame(number: int, colour: tuple[int, int, int] = (210, 90, 40)) -> av.VideoFrame:
    frame: av.VideoFrame = av.VideoFrame.from_image(Image.new("RGB", (64, 64), colour))
    frame.pts, frame.time_base = number, Fraction(1, 24)
    return frame


def frame_count(path: Path) -> int:
    with av.open(path) as clip:
        return sum(1 for _ in clip.decode(video=0))


# Looking


async def test_tells_what_a_clip_holds(tmp_path: Path) -> None:
    """All that the engine and the card need to know, from the file itself."""
    path = make(tmp_path / "clip.mp4", frames=36)

    facts = await probe(path)

    assert (facts.width, facts.height) == (320, 240)
    assert (facts.codec, facts.pixel_format) == ("h264", "yuv420p")
    assert facts.seconds == pytest.approx(1.5, abs=0.05)
    assert facts.frames_per_second == pytest.approx(24)
    assert facts.size == path.stat().st_size
    assert facts.plays_everywhere


async def test_sees_an_index_at_the_end(tmp_path: Path) -> None:
    """Such a file must be loaded whole before it plays."""
    facts = await probe(make(tmp_path / "clip.mp4", fast_start=False))

    assert not facts.fast_start
    assert not facts.plays_everywhere


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!doctype html><title>Sign in</title>",
        b'{"error": "expired"}',
        b"#EXTM3U\n#EXTINF:5,\n/etc/hostname\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        (DATA / "lighthouse.png").read_bytes(),
        (DATA / "harbour.jpg").read_bytes(),
    ],
    ids=["empty", "HTML", "JSON", "playlist", "list of files", "PNG", "JPEG"],
)
async def test_knows_what_is_not_a_clip(tmp_path: Path, content: bytes) -> None:
    """Error pages, pictures and playlists are none, whatever their name or type said."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)

    with pytest.raises(NotAClip):
        await probe(path)


async def test_a_clip_without_its_index_is_none(tmp_path: Path) -> None:
    """A download that broke off has no frame that can be decoded."""
    whole = make(tmp_path / "whole.mp4", fast_start=False).read_bytes()
    path = tmp_path / "half.mp4"
    path.write_bytes(whole[: len(whole) // 2])

    with pytest.raises(NotAClip):
        await probe(path)


async def test_sound_alone_is_not_a_clip(tmp_path: Path) -> None:
    """An mp4 needs a picture in it."""
    path = tmp_path / "sound.mp4"
    with av.open(path, "w") as output:
        audio = output.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame("fltp", "mono", 1024)
        frame.planes[0].update(bytes(4096))
        frame.sample_rate, frame.pts = 44_100, 0
        output.mux(audio.encode(frame))
        output.mux(audio.encode(None))

    with pytest.raises(NotAClip):
        await probe(path)


# Fitting


async def test_a_good_clip_stays_as_it_is(tmp_path: Path, pool: Executor) -> None:
    """No byte is touched where nothing is gained."""
    path = make(tmp_path / "clip.mp4")

    assert await fit(path, 10_000_000, pool=pool) == path


@pytest.mark.parametrize("name", ["late.mp4", "clip.mov", "clip.ts"])
async def test_good_pictures_are_only_packed_anew(tmp_path: Path, pool: Executor, name: str) -> None:
    """H.264 in another wrapping, or with its index last, keeps its very pictures and its sound."""
    path = make(tmp_path / name, fast_start=False, sound=True)
    with av.open(path) as clip:
        before = [bytes(frame.planes[0]) for frame in clip.decode(video=0)]

    fitted = await fit(path, 10_000_000, pool=pool)

    with av.open(fitted) as clip:
        assert [bytes(frame.planes[0]) for frame in clip.decode(video=0)] == before
    assert (await probe(fitted)).plays_everywhere
    assert streams(fitted) == ["h264", "aac"]


@pytest.mark.parametrize("sound", [False, True], ids=["silent", "with sound"])
async def test_a_heavy_clip_is_made_to_fit(tmp_path: Path, pool: Executor, *, sound: bool) -> None:
    """It comes out below the limit, near it, and still whole."""
    path = make(tmp_path / "clip.mp4", size=(480, 270), frames=48, busy=True, sound=sound)
    limit = 170_000
    assert path.stat().st_size > limit

    fitted = await fit(path, limit, pool=pool)

    facts = await probe(fitted)
    assert limit / 3 < facts.size <= limit
    assert facts.plays_everywhere
    assert facts.seconds == pytest.approx(2, abs=0.1)
    assert frame_count(fitted) == 48
    assert streams(fitted) == (["h264", "aac"] if sound else ["h264"])
    assert max(facts.width, facts.height) >= 240


async def test_an_easy_clip_keeps_its_size(tmp_path: Path, pool: Executor) -> None:
    """Pixels are given up only where the bits are too few for them."""
    path = make(tmp_path / "clip.mp4", size=(640, 360), pixel_format="yuv444p")

    fitted = await fit(path, 5_000_000, pool=pool)

    facts = await probe(fitted)
    assert (facts.width, facts.height) == (640, 360)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("clip.webm", "libvpx", "yuv420p"),
        ("clip.avi", "mpeg4", "yuv420p"),
        ("clip.mkv", "libx264", "yuv420p"),
        ("clip.mp4", "libx264", "yuv444p"),
    ],
)
async def test_other_codecs_are_converted(
    tmp_path: Path, pool: Executor, name: str, codec: str, pixel_format: str
) -> None:
    """What some of Discord's clients cannot play becomes H.264 in yuv420p; every frame is kept."""
    path = make(tmp_path / name, codec=codec, pixel_format=pixel_format)

    fitted = await fit(path, 5_000_000, pool=pool)

    assert (await probe(fitted)).plays_everywhere
    assert frame_count(fitted) == 24


async def test_odd_sides_become_even(tmp_path: Path, pool: Executor) -> None:
    """yuv420p halves the colours' sides, so both must be even."""
    path = make(tmp_path / "clip.mp4", size=(321, 241), pixel_format="yuv444p")

    facts = await probe(await fit(path, 5_000_000, pool=pool))

    assert (facts.width, facts.height) == (320, 240)
    assert facts.plays_everywhere


async def test_says_when_nothing_sensible_fits(tmp_path: Path, pool: Executor) -> None:
    """A minute in five kilobytes would be a smear; no file is left behind."""
    path = make(tmp_path / "clip.mp4", frames=60 * 4, rate=4)

    with pytest.raises(CannotFit):
        await fit(path, 5_000, pool=pool)

    assert names_in(tmp_path) == ["clip.mp4"]


async def test_fit_says_when_it_is_not_a_clip(tmp_path: Path, pool: Executor) -> None:
    """The same answer as from probe."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"nothing of the kind")

    with pytest.raises(NotAClip):
        await fit(path, 5_000_000, pool=pool)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.ENOMEM])
async def test_what_this_machine_lacks_says_nothing_of_the_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """FFmpeg's own errors for it, which may pass: the clip is not called unusable for them."""
    path = make(tmp_path / "clip.mp4", size=(160, 120), frames=6, busy=True)
    opened = av.open

    def lacking(file: object, mode: str = "r", **options: object) -> object:
        if mode == "w":
            av.error.err_check(-number)
        return opened(file, mode, **options)

    monkeypatch.setattr(av, "open", lacking)

    with ThreadPoolExecutor(1) as here, pytest.raises(OSError, match=os.strerror(number)):
        await fit(path, path.stat().st_size // 2, pool=here)


# The same from a real device, where the machine has one; the test above says it of every machine.
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
async def test_a_full_disk_says_nothing_of_the_clip(tmp_path: Path) -> None:
    """An error of this machine, which may pass: the clip is not called unusable for it."""
    path = make(tmp_path / "clip.mp4", size=(160, 120), frames=6, busy=True)
    (tmp_path / f"clip.fitted.mp4.{os.getpid()}.part").symlink_to("/dev/full")

    with ThreadPoolExecutor(1) as here, pytest.raises(OSError, match="No space left"):
        await fit(path, path.stat().st_size // 2, pool=here)


# The last frame


@pytest.mark.parametrize(("seconds", "rate"), [(0.5, 8), (7, 8), (4, 24)])
async def test_the_last_frame(tmp_path: Path, pool: Executor, seconds: float, rate: int) -> None:
    """As a PNG in full size, of short clips and long ones; each frame is brighter than the one before."""
    path, count = tmp_path / "clip.mp4", round(seconds * rate)
    with write_clip(path, width=320, height=240, frames_per_second=Fraction(rate), quality=10) as writer:
        for number in range(count):
            shade = 20 + 200 * number // max(1, count - 1)
            frame = av.VideoFrame.from_image(Image.new("RGB", (320, 240), (shade, shade, shade)))
            frame.pts, frame.time_base = number, Fraction(1, rate)
            writer.add(frame)

    with Image.open(io.BytesIO(await last_frame(path, pool=pool))) as image:
        assert (image.format, image.size) == ("PNG", (320, 240))
        assert image.convert("L").getpixel((160, 120)) == pytest.approx(220, abs=3)


async def test_the_last_frame_of_a_clip_that_breaks_off(tmp_path: Path, pool: Executor) -> None:
    """What can be decoded counts."""
    path = make(tmp_path / "clip.mp4", frames=48)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])

    with Image.open(io.BytesIO(await last_frame(path, pool=pool))) as image:
        assert image.size == (320, 240)


@pytest.mark.parametrize("content", [b"", b"nothing of the kind"])
async def test_no_last_frame(tmp_path: Path, pool: Executor, content: bytes) -> None:
    """The same answer as from probe."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)

    with pytest.raises(NotAClip):
        await last_frame(path, pool=pool)


# Writing


async def test_writes_a_clip_whole_or_not_at_all(tmp_path: Path) -> None:
    """A writer that fails half way leaves no file, not even a partial one."""
    path = tmp_path / "clip.mp4"

    def fail_half_way() -> None:
        with write_clip(path, width=64, height=64, frames_per_second=Fraction(24)) as writer:
            writer.add(flat_frame(0))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()

    assert names_in(tmp_path) == []


async def test_colours_are_marked_and_kept(tmp_path: Path, pool: Executor) -> None:
    """Drawn colours become BT.709 and are marked so; fitting a clip leaves its numbers as they are."""
    path = tmp_path / "clip.mp4"
    with write_clip(path, width=64, height=64, frames_per_second=Fraction(24)) as writer:
        for number in range(4):
            writer.add(flat_frame(number))
    unmarked = make(tmp_path / "unmarked.avi", codec="mpeg4")

    fitted = await fit(unmarked, 5_000_000, pool=pool)

    bt709, limited = 1, 1
    assert first_pixel(path)[:2] == (bt709, limited)
    assert first_pixel(path)[2] == pytest.approx((112, 94, 183), abs=2)
    assert first_pixel(fitted)[2] == pytest.approx(first_pixel(unmarked)[2], abs=2)


def first_pixel(path: Path) -> tuple[int, int, tuple[int, ...]]:
    with av.open(path) as clip:
        frame = next(clip.decode(video=0))
    return frame.colorspace, frame.color_range, tuple(bytes(plane)[0] for plane in frame.planes)
