"""Clips as files: what one is, and how to bring it to an mp4 that Discord plays and takes.

Everything Animatic posts is mp4, H.264, yuv420p, with its index first; the one writer of such files
is here. It knows nothing of jobs, providers or Discord. Only containers that hold clips are opened,
never playlists: what a stranger's server sends must not make FFmpeg read other files.
"""

import asyncio
import errno
import io
import math
import os
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer, OutputContainer
from av.stream import Stream
from av.video.frame import PictureType
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

_CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,flv,ogg"
_INPUT_OPTIONS = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
_MP4_BRANDS_WE_REWRITE = frozenset({b"qt  "})
_LARGEST_SIDE = 8192
_LONGEST_SECONDS = 600.0
_END_SECONDS = 2.0

_SMALLEST_LONG_SIDE = 240
_GOOD_BITS_PER_PIXEL = 0.035
_LEAST_BITS_PER_PIXEL = 0.01
_BEST_QUALITY = 18
_AUDIO_BITS = (32_000, 96_000)
_AUDIO_RATE = 48_000
_AAC_FRAME = 1024
_FASTEST = 60
_TRIES = 6
_BT709 = 1
_OURS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class NotAClip(Exception):
    """The file is not a video that can be played: no such container, no picture in it, or damaged."""


class CannotFit(Exception):
    """Even the smallest sensible version of the clip is larger than the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFacts:
    """What a file turned out to hold. `fast_start`: an mp4 whose index comes before its pictures."""

    width: int
    height: int
    seconds: float
    frames_per_second: float
    codec: str
    pixel_format: str
    fast_start: bool
    size: int

    @property
    def plays_everywhere(self) -> bool:
        """Whether Discord's clients play it in place, on every system."""
        return self.codec == "h264" and self.pixel_format == "yuv420p" and self.fast_start


async def probe(path: Path) -> ClipFacts:
    """Open the file and decode its first frame. Raises NotAClip where there is none."""
    return await asyncio.to_thread(_probe, path)


async def fit(path: Path, limit: int, *, pool: Executor) -> Path:
    """A version of the clip that plays everywhere and takes at most `limit` bytes.

    That is `path` itself where it already does; otherwise a new file beside it, made in `pool` (the
    original stays): only packed anew where that is enough, else encoded at the best quality that fits.
    Raises NotAClip, or CannotFit where even 240 pixels are too many. A worker that dies is the
    pool's own BrokenExecutor.
    """
    facts = await probe(path)
    if facts.plays_everywhere and facts.size <= limit:
        return path
    return await asyncio.get_running_loop().run_in_executor(pool, _fit, path, limit)


async def last_frame(path: Path, *, pool: Executor) -> bytes:
    """The picture that the clip ends on, as a PNG, upright. Raises NotAClip where there is none.

    Decoded in `pool`; a worker that dies is the pool's own BrokenExecutor.
    """
    return await asyncio.get_running_loop().run_in_executor(pool, _last_frame, path)


class ClipWriter:
    """The open end of `write_clip`: takes frames of any format and size, in the order of their times."""

    def __init__(self, output: OutputContainer, video: VideoStream, audio_bits: int | None) -> None:
        self._output = output
        self._video = video
        self._audio = None
        if audio_bits is not None:
            self._audio = output.add_stream("aac", rate=_AUDIO_RATE, bit_rate=audio_bits, layout="stereo")
            self._resampler = av.AudioResampler("fltp", "stereo", _AUDIO_RATE, _AAC_FRAME)

    def add(self, frame: av.VideoFrame) -> None:
        """Scale, convert and write one frame, which carries its own `pts` and `time_base`."""
        if not self._video.codec_context.is_open:
            self._keep_colours(frame)
        converted = frame.reformat(
            self._video.width,
            self._video.height,
            "yuv420p",
            dst_colorspace="ITU709" if frame.format.is_rgb else None,
            dst_color_range=ColorRange.MPEG,
            interpolation="BICUBIC",
        )
        converted.pict_type = PictureType.NONE
        self._output.mux(self._video.encode(converted))

    def _keep_colours(self, frame: av.VideoFrame) -> None:
        """Say in the file how its colours are meant: drawings become BT.709, clips stay as they were."""
        context = self._video.codec_context
        context.color_range = ColorRange.MPEG
        context.colorspace = _BT709 if frame.format.is_rgb else frame.colorspace
        if context.colorspace == _BT709:
            context.color_primaries = context.color_trc = _BT709

    def add_sound(self, frame: av.AudioFrame | None) -> None:
        """Write one frame of sound; None at its end. Ignored by a clip opened without sound."""
        if self._audio is not None:
            for resampled in self._resampler.resample(frame):
                self._output.mux(self._audio.encode(resampled))

    def finish(self) -> None:
        self._output.mux(self._video.encode(None))
        if self._audio is not None:
            self.add_sound(None)
            self._output.mux(self._audio.encode(None))


@contextmanager
def write_clip(
    path: Path,
    *,
    width: int,
    height: int,
    frames_per_second: Fraction,
    preset: str = "veryfast",
    quality: int = 20,
    most_bits: int | None = None,
    audio_bits: int | None = None,
) -> Iterator[ClipWriter]:
    """Write `path` as an mp4 that plays everywhere, whole or not at all. `width` and `height` are even.

    `quality` is x264's constant rate factor, lower is better; `most_bits` caps the bits a second.
    """
    options = {"preset": preset, "crf": str(quality)}
    if most_bits is not None:
        options |= {"maxrate": str(most_bits), "bufsize": str(most_bits)}
    with _write_mp4(path) as output:
        video = output.add_stream("libx264", rate=frames_per_second, options=options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.time_base = Fraction(1, 90_000)
        writer = ClipWriter(output, video, audio_bits)
        yield writer
        writer.finish()


@contextmanager
def _write_mp4(path: Path) -> Iterator[OutputContainer]:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with av.open(part, "w", format="mp4", options={"movflags": "+faststart"}) as output:
            yield output
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


# Looking


def _probe(path: Path) -> ClipFacts:
    size = path.stat().st_size
    try:
        with av.open(path, "r", container_options=_INPUT_OPTIONS) as source:
            video = _video_of(source)
            frame = next(source.decode(video), None)
            if frame is None:
                raise NotAClip("no frame in it")
            return ClipFacts(
                width=frame.width,
                height=frame.height,
                seconds=_seconds(source, video),
                frames_per_second=float(video.average_rate or video.guessed_rate or 0),
                codec=video.codec_context.name,
                pixel_format=video.pix_fmt or frame.format.name,
                fast_start=_starts_fast(path),
                size=size,
            )
    except (av.FFmpegError, ValueError) as error:
        _raise_ours(error)
        raise NotAClip(str(error)) from error


def _raise_ours(error: Exception) -> None:
    """Raise OSError for what this machine lacks: it says nothing of the clip, and may pass."""
    number = getattr(error, "errno", None)
    if number in _OURS:
        raise OSError(number, os.strerror(number)) from None


def _last_frame(path: Path) -> bytes:
    last: av.VideoFrame | None = None
    try:
        with av.open(path, "r", container_options=_INPUT_OPTIONS) as source:
            video = _video_of(source)
            video.thread_type = "AUTO"
            if (seconds := _seconds(source, video)) > _END_SECONDS:
                start = source.start_time or 0
                source.seek(start + round((seconds - _END_SECONDS) * av.time_base))
            for frame in source.decode(video):
                last = frame
    except (av.FFmpegError, ValueError) as error:
        if last is None:  # a damaged end has a last frame all the same
            raise NotAClip(str(error)) from error
    if last is None:
        raise NotAClip("no frame in it")
    file = io.BytesIO()
    image = last.to_image()  # type: ignore[no-untyped-call]  # PyAV's gap
    if last.rotation:
        image = image.rotate(last.rotation, expand=True)
    image.save(file, "PNG")
    return file.getvalue()


def _video_of(source: InputContainer) -> VideoStream:
    video = next(iter(source.streams.video), None)
    if video is None:
        raise NotAClip("no video stream")
    if not 0 < max(video.width, video.height) <= _LARGEST_SIDE:
        raise NotAClip(f"{video.width}x{video.height} pixels")
    return video


def _seconds(source: InputContainer, video: VideoStream) -> float:
    if video.duration is not None and video.time_base is not None:
        return float(video.duration * video.time_base)
    return source.duration / av.time_base if source.duration is not None else 0.0


def _starts_fast(path: Path) -> bool:
    """Read the mp4's outermost boxes: is `moov`, the index, before `mdat`, the pictures?"""
    with path.open("rb") as file:
        if (first := _box(file)) is None or first[0] != b"ftyp":
            return False
        if file.read(4) in _MP4_BRANDS_WE_REWRITE:
            return False
        file.seek(first[1])
        for _ in range(64):
            if (box := _box(file)) is None or box[0] == b"mdat":
                return False
            if box[0] == b"moov":
                return True
            file.seek(box[1])
    return False


def _box(file: BinaryIO) -> tuple[bytes, int] | None:
    """The kind of the box that starts here, and where it ends."""
    start, header = file.tell(), file.read(8)
    if len(header) < 8:
        return None
    length = int.from_bytes(header[:4], "big")
    if length == 1:
        length = int.from_bytes(file.read(8), "big")
    return (header[4:], start + length) if length >= 8 else None


# Fitting; this part runs in a worker process


def _fit(path: Path, limit: int) -> Path:
    facts = _probe(path)
    target = path.with_name(f"{path.stem}.fitted.mp4")
    packable = facts.codec == "h264" and facts.pixel_format == "yuv420p" and facts.size <= limit * 1.02
    if packable and _remux(path, target) and target.stat().st_size <= limit:
        return target
    target.unlink(missing_ok=True)
    if facts.seconds > _LONGEST_SECONDS:
        raise CannotFit(f"{facts.seconds:.0f} seconds long")
    try:
        _encode_to_fit(path, target, facts, limit)
        _probe(target)
    except (av.FFmpegError, NotAClip) as error:
        target.unlink(missing_ok=True)
        _raise_ours(error)
        raise NotAClip(str(error)) from error
    return target


def _remux(path: Path, target: Path) -> bool:
    """Pack the same pictures and sound anew; False where they do not go into an mp4 as they are."""
    try:
        with av.open(path, "r", container_options=_INPUT_OPTIONS) as source:
            kept = [_video_of(source), *source.streams.audio[:1]]
            if any(stream.codec_context.name not in ("h264", "aac", "mp3") for stream in kept):
                return False
            with _write_mp4(target) as output:
                _copy_packets(source, output, kept)
        return _probe(target).plays_everywhere
    except (av.FFmpegError, NotAClip, ValueError):
        return False


def _copy_packets(source: InputContainer, output: OutputContainer, kept: list[Stream]) -> None:
    copies = {stream.index: output.add_stream_from_template(stream) for stream in kept}
    for packet in source.demux(kept):
        if packet.size == 0:
            continue  # PyAV's sign for the end of a stream
        if packet.dts is None:
            raise ValueError("no decoding times, as in Matroska: mp4 needs them")
        packet.stream = copies[packet.stream.index]
        output.mux(packet)


@dataclass(frozen=True, slots=True)
class _Version:
    width: int
    height: int
    video_bits: int
    audio_bits: int | None


def _encode_to_fit(path: Path, target: Path, facts: ClipFacts, limit: int) -> None:
    """Aim the bits a second at the limit; while the file is still too large, aim lower.

    Where the bits are too few for the pixels, fewer pixels look better: see `_version`.
    """
    with av.open(path, "r", container_options=_INPUT_OPTIONS) as source:
        has_sound = bool(source.streams.audio)
    aim = float(limit)
    for _ in range(_TRIES):
        version = _version(facts, aim, has_sound=has_sound)
        _encode(path, target, facts, version)
        size = target.stat().st_size
        if size <= limit:
            return
        target.unlink()
        aim *= 0.95 * limit / size
    raise CannotFit(f"still {size} bytes at {version.width}x{version.height}")


def _version(facts: ClipFacts, aim: float, *, has_sound: bool) -> _Version:
    """The sharpest version whose file takes about `aim` bytes. Raises CannotFit where none makes sense."""
    rate = float(_frame_rate(facts))
    seconds = max(facts.seconds, 1 / rate)
    index_bytes = 2_000 + seconds * (rate * 20 + (50 * 10 if has_sound else 0))
    bits = max(0.0, aim - index_bytes) * 8
    sound = None
    if has_sound:
        sound = min(max(round(bits / seconds * 0.15), _AUDIO_BITS[0]), _AUDIO_BITS[1])
        bits -= sound * seconds
    # A decoder's buffer, one second long here, may be filled once on top of the steady rate.
    video = bits / (seconds + 0.9)
    pixels = facts.width * facts.height * rate
    scale = min(1.0, math.sqrt(max(0.0, video / pixels / _GOOD_BITS_PER_PIXEL)))
    longest = max(facts.width, facts.height)
    scale = max(scale, min(1.0, _SMALLEST_LONG_SIDE / longest))
    if video < _LEAST_BITS_PER_PIXEL * pixels * scale**2:
        raise CannotFit(f"{video:.0f} bits a second for {facts.seconds:.1f} seconds")
    return _Version(_even(facts.width * scale), _even(facts.height * scale), round(video), sound)


def _encode(path: Path, target: Path, facts: ClipFacts, version: _Version) -> None:
    with (
        av.open(path, "r", container_options=_INPUT_OPTIONS) as source,
        write_clip(
            target,
            width=version.width,
            height=version.height,
            frames_per_second=_frame_rate(facts),
            preset="fast",
            quality=_BEST_QUALITY,
            most_bits=version.video_bits,
            audio_bits=version.audio_bits,
        ) as writer,
    ):
        video = _video_of(source)
        video.thread_type = "AUTO"
        kept = [video, *source.streams.audio[: 1 if version.audio_bits else 0]]
        start = Fraction(source.start_time or 0, av.time_base)
        latest: Fraction | None = None
        for packet in source.demux(kept):
            for frame in packet.decode():
                if not isinstance(frame, av.AudioFrame | av.VideoFrame) or frame.pts is None:
                    continue
                moment = frame.pts * frame.time_base - start
                frame.pts = round(moment / frame.time_base)
                if isinstance(frame, av.AudioFrame):
                    writer.add_sound(frame)
                elif latest is None or moment - latest >= Fraction(1, _FASTEST + 1):
                    latest = moment
                    writer.add(frame)


def _frame_rate(facts: ClipFacts) -> Fraction:
    rate = min(max(facts.frames_per_second or 24.0, 1.0), float(_FASTEST))
    return Fraction(rate).limit_denominator(1001)


def _even(side: float) -> int:
    return max(2, int(side) // 2 * 2)
