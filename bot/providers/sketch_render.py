"""The drawing behind the `sketch` route: a picture, or a title card, seen by a moving camera.

Runs in a worker process that is started for it, so it imports little. The picture hangs flat in
space and a pinhole camera moves before it: a move is a pose at the start and one at the end, and a
frame is one perspective transform of the whole picture, exact below a pixel. It knows words and
files, and nothing of jobs or routes.
"""

import math
import os
import re
import zlib
from bisect import bisect_right
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageOps

from bot.media.clip import write_clip

RATIOS = ("16:9", "9:16", "1:1")

_RATE = 24
_LONG_SIDE = 720
_LEAST_LONG_SIDE = 480
_AT_A_TIME = 12
_DISTANCE = 1.4  # from camera to picture, in heights of the picture: a normal lens
_BLEED = 1.004  # keeps the bicubic filter's reach inside the picture
_DISSOLVE = (0.5, 0.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to draw and where. Pictures are PNG or JPEG; `ratio` shapes a clip that has no picture."""

    prompt: str
    seconds: int
    ratio: str | None
    picture: Path | None
    end_picture: Path | None
    clip: Path
    progress: Path
    stop: Path


class Stopped(Exception):
    """The `stop` file appeared; nothing was written."""


def render(order: Order) -> None:
    """Draw the clip, whole or not at all.

    On the way `progress` holds the share done as text; when `stop` appears, raises Stopped.
    """
    camera = read_camera(order.prompt)
    draw, (width, height) = _scene(order, camera)
    count = order.seconds * _RATE
    with (
        write_clip(order.clip, width=width, height=height, frames_per_second=Fraction(_RATE)) as writer,
        ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as artists,
    ):
        for first in range(0, count, _AT_A_TIME):
            if order.stop.exists():
                raise Stopped
            numbers = range(first, min(first + _AT_A_TIME, count))
            for number, image in zip(
                numbers, artists.map(lambda n: draw(n / (count - 1)), numbers), strict=True
            ):
                frame: av.VideoFrame = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]  # its stub has no types
                frame.pts, frame.time_base = number, Fraction(1, _RATE)
                writer.add(frame)
            order.progress.write_text(f"{numbers.stop / count:.3f}")
    order.progress.unlink(missing_ok=True)


# The camera


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the camera is and looks, as differences from "straight at the whole picture".

    `x`, `y` in heights of the picture (down is positive), `nearer` as the logarithm of the
    enlargement, angles in radians; `swing` moves the camera round the picture's middle.
    """

    x: float = 0.0
    y: float = 0.0
    nearer: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    swing: float = 0.0

    def __add__(self, other: "Pose") -> "Pose":
        return Pose(*(mine + theirs for mine, theirs in zip(self._values(), other._values(), strict=True)))

    def __mul__(self, factor: float) -> "Pose":
        return Pose(*(value * factor for value in self._values()))

    def _values(self) -> tuple[float, ...]:
        return self.x, self.y, self.nearer, self.yaw, self.pitch, self.roll, self.swing


@dataclass(frozen=True, slots=True)
class Camera:
    """A path from one pose to another, with the tremor of a hand where asked."""

    start: Pose
    end: Pose
    tremor: float = 0.0

    def at(self, moment: float) -> Pose:
        """The pose at a moment from 0 to 1: eased in and out."""
        eased = moment * moment * (3 - 2 * moment)
        pose = self.start * (1 - eased) + self.end * eased
        if self.tremor:
            pose += _tremble(moment) * self.tremor
        return pose

    def calmer(self, factor: float) -> "Camera":
        return Camera(self.start * factor, self.end * factor, self.tremor * factor)


def _tremble(moment: float) -> Pose:
    def wave(*parts: tuple[float, float, float]) -> float:
        return sum(size * math.sin(math.tau * turns * moment + shift) for size, turns, shift in parts)

    return Pose(
        x=wave((0.010, 3.1, 0.4), (0.005, 7.3, 2.1), (0.002, 13.7, 1.0)),
        y=wave((0.009, 2.7, 1.9), (0.005, 6.1, 0.3), (0.002, 15.1, 2.6)),
        roll=wave((0.008, 2.3, 0.9), (0.003, 5.9, 1.4)),
        nearer=wave((0.008, 1.7, 0.0)),
    )


def _words(verb: str, where: str = "") -> re.Pattern[str]:
    """`verb`, then at most three other words of the same clause, then `where`."""
    return re.compile(rf"\b(?:{verb})\b" + (rf"(?:[ -]+\w+){{0,3}}?[ -]+(?:{where})\b" if where else ""))


_LEFT, _RIGHT, _UP, _DOWN = "left|leftwards?", "right|rightwards?", "up|upwards?", "down|downwards?"
_ZOOM = r"zoom(?:s|ing)?|doll(?:y|ies|ying)"
_PAN = r"pan(?:s|ning)?"
_TILT = r"tilt(?:s|ing)?"
_TRUCK = r"truck(?:s|ing)?|track(?:s|ing)?|slid(?:e|es|ing)"
_LIFT = r"pedestals?|boom(?:s|ing)?"
_CRANE = r"cran(?:e|es|ing)|jib"
_ROLL = r"camera rolls?|roll(?:s|ing)?|rotat(?:e|es|ing)|dutch"
_ORBIT = r"orbit(?:s|ing)?|arc(?:s|ing)?|circl(?:e|es|ing)"

# What is named first wins its axis; lines further down are the vaguer wordings of the same axis.
_MOVES: tuple[tuple[str, re.Pattern[str], Pose, Pose], ...] = (
    ("depth", _words(_ZOOM, "out|back|backwards?|away"), Pose(nearer=0.40), Pose()),
    ("depth", _words("pull(?:s|ing)?", "out|back|backwards?|away"), Pose(nearer=0.40), Pose()),
    ("depth", _words("push(?:es|ing)?", "in|into|forwards?|closer"), Pose(), Pose(nearer=0.36)),
    ("depth", _words("(?:camera|mov(?:e|es|ing))", "closer|forwards?"), Pose(), Pose(nearer=0.36)),
    ("depth", _words("(?:camera|mov(?:e|es|ing))", "backwards?|away"), Pose(nearer=0.40), Pose()),
    ("depth", _words(_ZOOM), Pose(), Pose(nearer=0.36)),
    ("turn", _words(_PAN, _LEFT), Pose(yaw=0.15), Pose(yaw=-0.15)),
    ("turn", _words(_PAN, _RIGHT), Pose(yaw=-0.15), Pose(yaw=0.15)),
    ("turn", _words(rf"camera (?:{_PAN})|panning|{_PAN} across"), Pose(yaw=-0.15), Pose(yaw=0.15)),
    ("nod", _words(_TILT, _UP), Pose(pitch=-0.12), Pose(pitch=0.12)),
    ("nod", _words(_TILT, _DOWN), Pose(pitch=0.12), Pose(pitch=-0.12)),
    ("across", _words(_TRUCK, _LEFT), Pose(x=0.18), Pose(x=-0.18)),
    ("across", _words(_TRUCK, _RIGHT), Pose(x=-0.18), Pose(x=0.18)),
    ("rise", _words(_LIFT, _DOWN), Pose(y=-0.14), Pose(y=0.14)),
    ("rise", _words(_LIFT), Pose(y=0.14), Pose(y=-0.14)),
    ("rise", _words(_CRANE, _DOWN), Pose(y=-0.16, pitch=-0.10), Pose(y=0.10, nearer=0.14)),
    ("rise", _words(_CRANE), Pose(y=0.10, nearer=0.14), Pose(y=-0.16, pitch=-0.10)),
    ("roll", _words(_ROLL, rf"{_LEFT}|counter-?clockwise|anti-?clockwise"), Pose(), Pose(roll=-0.16)),
    ("roll", _words(_ROLL, rf"{_RIGHT}|clockwise"), Pose(), Pose(roll=0.16)),
    ("roll", _words(r"camera roll(?:s|ing)?|dutch"), Pose(roll=-0.08), Pose(roll=0.08)),
    ("orbit", _words(_ORBIT, _LEFT), Pose(swing=0.30), Pose(swing=-0.30)),
    ("orbit", _words(rf"{_ORBIT}", _RIGHT), Pose(swing=-0.30), Pose(swing=0.30)),
    ("orbit", _words(r"orbit(?:s|ing)?|arc shot|camera circles"), Pose(swing=-0.30), Pose(swing=0.30)),
    ("orbit", _words(r"(?:circl|mov|rotat)(?:e|es|ing) around"), Pose(swing=-0.30), Pose(swing=0.30)),
)
_TREMOR = _words(r"hand-?held|hand held|shak(?:y|e|es|ing)|found footage")
_STILL = _words(
    r"static|still camera|still shot|locked[ -](?:off|down)|tripod|no (?:camera )?(?:movement|motion)"
)
_CALM = _words(r"slow|slowly|gentle|gently|subtle|subtly|slight|slightly")
_LIVELY = _words(r"fast|quick|quickly|rapid|rapidly|dramatic|dramatically|extreme|strong")
_UNASKED = Camera(Pose(x=-0.012, y=0.008), Pose(x=0.012, y=-0.008, nearer=0.20))


def read_camera(prompt: str) -> Camera:
    """The camera that the prompt asks for; a gentle push in where it asks for none."""
    text = prompt.lower()
    start, end = Pose(), Pose()
    taken: set[str] = set()
    for axis, pattern, at_start, at_end in _MOVES:
        if axis not in taken and pattern.search(text):
            taken.add(axis)
            start, end = start + at_start, end + at_end
    tremor = 1.0 if _TREMOR.search(text) else 0.0
    if _STILL.search(text):
        return Camera(Pose(), Pose(), tremor)
    if not taken:
        return Camera(_UNASKED.start, _UNASKED.end, tremor)
    force = 0.7 if _CALM.search(text) else 1.35 if _LIVELY.search(text) else 1.0
    return Camera(start * force, end * force, tremor)


# From pose to pixels

_Row = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class _View:
    """A camera before a picture of one shape, moved back as far as keeps the picture's edge out of sight."""

    camera: Camera
    ratio: float
    retreat: float = 1.0

    @classmethod
    def inside(cls, camera: Camera, ratio: float) -> "_View":
        view = cls(camera, ratio)
        corners = [(sx * ratio / 2, sy / 2) for sx in (-1, 1) for sy in (-1, 1)]
        most = 1.0
        for step in range(97):
            rows = view.rows(step / 96)
            for corner in corners:
                x, y = _seen(rows, *corner)
                most = max(most, abs(x) / (ratio / 2), abs(y) * 2)
        return cls(camera, ratio, most * _BLEED)

    @property
    def enlargement(self) -> float:
        """How much larger than the whole picture the nearest view shows it."""
        return self.retreat * math.exp(max(self.camera.start.nearer, self.camera.end.nearer))

    def rows(self, moment: float) -> tuple[_Row, _Row, _Row]:
        """The homography from the picture plane of the camera to the picture."""
        pose = self.camera.at(moment)
        distance = _DISTANCE * math.exp(-pose.nearer)
        away = (
            pose.x + distance * math.sin(pose.swing),
            pose.y,
            -distance * math.cos(pose.swing),
        )
        sy, cy = math.sin(pose.yaw - pose.swing), math.cos(pose.yaw - pose.swing)
        sp, cp = math.sin(pose.pitch), math.cos(pose.pitch)
        sr, cr = math.sin(pose.roll), math.cos(pose.roll)
        ray: tuple[_Row, _Row, _Row] = (
            ((cy * cr - sy * sp * sr) / _DISTANCE, (-cy * sr - sy * sp * cr) / _DISTANCE, sy * cp),
            (cp * sr / _DISTANCE, cp * cr / _DISTANCE, -sp),
            ((-sy * cr - cy * sp * sr) / _DISTANCE, (sy * sr - cy * sp * cr) / _DISTANCE, cy * cp),
        )

        def hit(side: int) -> _Row:
            a, b, c = ((away[side] * ray[2][i] - away[2] * ray[side][i]) / self.retreat for i in range(3))
            return a, b, c

        return hit(0), hit(1), ray[2]

    def shoot(
        self, image: Image.Image, size: tuple[int, int], moment: float, *, margin: int = 0
    ) -> Image.Image:
        """The picture as the camera sees it at this moment. It lies in `image` with a black margin, of so many pixels,
        that may be seen too."""
        width, height = size
        to_plane = (self.ratio / width, 1 / height)
        across, down, depth = self.rows(moment)
        wide, high = image.width - 2 * margin, image.height - 2 * margin
        pixels = (
            tuple(
                wide * n / self.ratio + (wide / 2 + margin) * d for n, d in zip(across, depth, strict=True)
            ),
            tuple(high * n + (high / 2 + margin) * d for n, d in zip(down, depth, strict=True)),
            depth,
        )
        a, b, c = (
            (p[0] * to_plane[0], p[1] * to_plane[1], p[2] - p[0] * self.ratio / 2 - p[1] / 2) for p in pixels
        )
        transform = tuple(value / c[2] for value in (*a, *b, *c[:2]))
        if (box := _cut_out(transform, size, image.size)) is not None:
            return image.resize(size, Image.Resampling.BICUBIC, box=box)
        return image.transform(size, Image.Transform.PERSPECTIVE, transform, Image.Resampling.BICUBIC)


def _cut_out(
    transform: tuple[float, ...], size: tuple[int, int], whole: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """The upright part of the picture that is all a transform shows, where it is one: that is drawn much faster."""
    across, slant, left, lean, down, top, *depth = transform
    box = (left, top, left + across * size[0], top + down * size[1])
    inside = min(left, top) >= 0 and box[2] <= whole[0] and box[3] <= whole[1]
    return box if inside and not any((slant, lean, *depth)) else None


def _seen(rows: tuple[_Row, _Row, _Row], x: float, y: float) -> tuple[float, float]:
    across, down, depth = (row[0] * x + row[1] * y + row[2] for row in rows)
    return across / depth, down / depth


# What is seen

_Draw = Callable[[float], Image.Image]


def _scene(order: Order, camera: Camera) -> tuple[_Draw, tuple[int, int]]:
    if order.picture is None:
        return _title_card(order, camera)
    picture = _open(order.picture)
    size = _frame_size(picture.width / picture.height, max(picture.size))
    view = _View.inside(camera, picture.width / picture.height)
    vignette = _vignette(size)
    # Between one source pixel a frame pixel at the nearest and at the farthest view: sharp, without shimmer.
    detail = max(1.0, view.enlargement**0.6)
    prepared = (round(size[0] * detail), round(size[1] * detail))
    first = picture.resize(prepared, Image.Resampling.LANCZOS)
    last = None
    if order.end_picture is not None:
        last = ImageOps.fit(_open(order.end_picture), prepared, Image.Resampling.LANCZOS)

    def draw(moment: float) -> Image.Image:
        share = 0.0 if last is None else _dissolve(moment)
        if last is None or share == 0:
            image = view.shoot(first, size, moment)
        elif share == 1:
            image = view.shoot(last, size, moment)
        else:
            image = Image.blend(view.shoot(first, size, moment), view.shoot(last, size, moment), share)
        return ImageChops.multiply(image, vignette)

    return draw, size


def _open(path: Path) -> Image.Image:
    with Image.open(path, formats=("PNG", "JPEG")) as image:
        return image.convert("RGB")


def _frame_size(ratio: float, longest: int) -> tuple[int, int]:
    side = min(_LONG_SIDE, max(_LEAST_LONG_SIDE, longest))
    width, height = (side, side / ratio) if ratio >= 1 else (side * ratio, side)
    return max(16, round(width / 2) * 2), max(16, round(height / 2) * 2)


def _dissolve(moment: float) -> float:
    begin, end = _DISSOLVE
    share = min(1.0, max(0.0, (moment - begin) / (end - begin)))
    return share * share * (3 - 2 * share)


def _vignette(size: tuple[int, int]) -> Image.Image:
    fall_off = Image.radial_gradient("L").point(lambda far: 255 - 46 * max(0.0, far / 255 - 0.35) ** 2 / 0.42)
    return fall_off.resize(size, Image.Resampling.BICUBIC).convert("RGB")


# The title card

_PALETTES = (
    ((23, 18, 48), (112, 50, 104), (244, 142, 96)),
    ((9, 28, 46), (22, 86, 104), (120, 196, 168)),
    ((20, 22, 52), (58, 66, 148), (206, 140, 214)),
    ((26, 20, 30), (122, 44, 62), (238, 168, 88)),
    ((10, 30, 36), (28, 88, 78), (222, 206, 130)),
)


def _title_card(order: Order, camera: Camera) -> tuple[_Draw, tuple[int, int]]:
    across, down = (int(part) for part in (order.ratio or RATIOS[0]).split(":"))
    size = _frame_size(across / down, _LONG_SIDE)
    large = (size[0] * 3 // 2, size[1] * 3 // 2)
    ground = _ground(large, zlib.crc32(order.prompt.encode()))
    margin = large[1] // 10  # farther than the letters move, unless the camera turns
    text = ImageOps.expand(_lettering(order.prompt, large), margin)
    far = _View.inside(camera, size[0] / size[1])
    near = _View(camera.calmer(0.3), size[0] / size[1])
    ink = Image.new("RGB", size, (252, 248, 240))

    def draw(moment: float) -> Image.Image:
        image = far.shoot(ground, size, moment)
        image.paste(ink, mask=near.shoot(text, size, moment, margin=margin))
        return image

    return draw, size


def _ground(size: tuple[int, int], seed: int) -> Image.Image:
    """Dusk over the prompt's own colours: a gradient, two lights, and grain against banding."""
    dark, middle, light = _PALETTES[seed % len(_PALETTES)]
    fade = Image.linear_gradient("L").resize(size, Image.Resampling.BICUBIC)
    image = ImageOps.colorize(
        fade, dark, middle, mid=tuple((a * 2 + b) // 3 for a, b in zip(dark, middle, strict=True))
    )
    for share, strength, x, y in (
        (1.7, 0.75, 0.22 + (seed >> 8) % 56 / 100, 1.02),
        (1.0, 0.30, 0.15 + (seed >> 16) % 70 / 100, 0.12),
    ):
        side = round(max(size) * share)
        soft = Image.radial_gradient("L").resize((side, side), Image.Resampling.BICUBIC)
        soft = soft.point([round(max(0.0, 1 - far / 178) ** 2 * 255 * strength) for far in range(256)])
        mask = Image.new("L", size)
        mask.paste(soft, (round(size[0] * x - side / 2), round(size[1] * y - side / 2)))
        image.paste(light, mask=mask)
    grain = Image.effect_noise(size, 3).convert("RGB")
    return ImageChops.add(image, grain, 1, -128)


def _lettering(prompt: str, size: tuple[int, int]) -> Image.Image:
    """White on black: the prompt as large as it fits, a short rule above, our name below."""
    mask = Image.new("L", size)
    pen = ImageDraw.Draw(mask)
    unit = min(size) / 100
    width, height = size[0] * 0.76, size[1] * 0.58
    font, lines = _set_in_lines(prompt, width, height, unit)
    leading = font.size * 1.32
    top = (size[1] - leading * len(lines)) / 2
    if lines:
        pen.rounded_rectangle(
            (size[0] / 2 - 7 * unit, top - 6 * unit, size[0] / 2 + 7 * unit, top - 5.3 * unit),
            unit / 2,
            fill=150,
        )
    for number, line in enumerate(lines):
        pen.text((size[0] / 2, top + leading * (number + 0.5)), line, fill=255, font=font, anchor="mm")
    small = _font(3.1 * unit)
    pen.text((size[0] / 2, size[1] - 11 * unit), "a n i m a t i c", fill=120, font=small, anchor="mm")
    return mask


def _set_in_lines(
    prompt: str, width: float, height: float, unit: float
) -> tuple[ImageFont.FreeTypeFont, list[str]]:
    words = _drawable(prompt).split()
    for share in (11, 9.5, 8.2, 7, 6, 5.2, 4.5, 4):
        font = _font(share * unit)
        lines = _wrap(words, font, width)
        if len(lines) * font.size * 1.32 <= height and all(font.getlength(line) <= width for line in lines):
            return font, lines
    room = int(height / (font.size * 1.32))
    kept = [_shorten(line, font, width) for line in lines[:room]]
    if len(lines) > room:
        kept[-1] = _shorten(kept[-1] + " …", font, width)
    return font, kept


def _wrap(words: list[str], font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Lines of about equal length: as few as needed, then as narrow as that number allows."""

    def broken(limit: float) -> list[str]:
        lines: list[str] = []
        for word in words:
            if lines and font.getlength(f"{lines[-1]} {word}") <= limit:
                lines[-1] += f" {word}"
            else:
                lines.append(word)
        return lines

    lines = broken(width)
    for share in (0.5, 0.6, 0.7, 0.8, 0.9):
        narrower = broken(width * share)
        if len(narrower) == len(lines) and all(font.getlength(line) <= width for line in narrower):
            return narrower
    return lines


def _shorten(line: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    def cut(letters: int) -> str:
        return line[:letters].rstrip() + "…"

    if font.getlength(line) <= width:
        return line
    fits = bisect_right(range(1, len(line)), width, key=lambda letters: font.getlength(cut(letters)))
    return cut(max(1, fits))


def _font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType")
    return font


def _drawable(text: str) -> str:
    """Without what the built-in font has no shape for, such as emoji."""
    font = _font(16)
    unknown = bytes(font.getmask("\U0010ffff"))
    shapes = {sign: sign.isspace() or bytes(font.getmask(sign)) != unknown for sign in set(text)}
    return "".join(sign for sign in text if shapes[sign])
