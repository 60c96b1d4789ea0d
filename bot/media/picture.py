"""Whatever a person attaches becomes a picture that a model takes, or a sentence on why not.

Judged by its bytes, never by its name. It knows a model's rules as data, and nothing of Discord,
providers or files.
"""

import asyncio
import io
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import pillow_heif
from PIL import Image, ImageCms, ImageFilter, ImageOps, ImageStat

from bot.errors import Refusal
from bot.providers.base import Picture, PictureRules

MAX_BYTES = 25 * 1024 * 1024
MAX_PIXELS = 50_000_000

_MOST_ENLARGED = 2.0
_MOST_PADDED = 1.5
_LARGEST_PNG = 4 * 1024 * 1024
_QUALITIES = (92, 85, 78, 70)
_SHRINKINGS = 14
_AT_ONCE = 2

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "HEIF", "AVIF", "BMP")
_LOSSLESS = frozenset({"PNG", "GIF", "BMP"})
_ANIMATED = frozenset({"PNG", "WEBP", "GIF", "AVIF"})
_PICTURE_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis"})

_WHITE = (255, 255, 255)
_DARK = (30, 31, 34)

pillow_heif.register_heif_opener()


def refuse_by_size(size: int, *, name: str = "The picture") -> None:
    """Raise Refusal when a file of `size` bytes is more than we read; for use before downloading it."""
    if size > MAX_BYTES:
        raise _refusal(
            f"{name} is {_megabytes(size)}, and {_megabytes(MAX_BYTES)} is the most I can take. "
            "Save it smaller, for example as a JPEG, and attach it again."
        )


async def normalise(data: bytes, rules: PictureRules, *, name: str = "The picture") -> Picture:
    """The picture in `data`, upright, opaque, without metadata, as PNG or JPEG within `rules`.

    Raises Refusal, whose sentences begin with `name`, say what to change and end with what it cost.
    Runs off the event loop, few at a time: a decoded picture takes up to four bytes a pixel.
    """
    refuse_by_size(len(data), name=name)
    return await asyncio.get_running_loop().run_in_executor(_decoders(), _normalise, data, rules, name)


@cache
def _decoders() -> ThreadPoolExecutor:
    # Its own threads: waiting for a turn in the loop's default ones would hold up name look-ups.
    return ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="picture")


def _normalise(data: bytes, rules: PictureRules, name: str) -> Picture:
    source = _decode(data, rules, name)
    image, notes = source.image, source.notes
    plan = _plan(*source.original_size, rules, name)
    canvas = _lay_out(image, plan)
    encoded, media_type, size = _encode(canvas, rules, name, lossless=source.lossless)
    if size != plan.canvas:
        notes.append(
            f"{name} was scaled down to {_pixels(*size)}, "
            f"so that the file fits this model's {_megabytes(rules.max_bytes)}."
        )
    return Picture(
        data=encoded,
        media_type=media_type,
        width=size[0],
        height=size[1],
        notes=(*notes, *plan.notes),
    )


# Decoding


@dataclass(frozen=True, slots=True)
class _Source:
    """The first frame, upright and opaque in sRGB, perhaps already smaller than `original_size`."""

    image: Image.Image
    original_size: tuple[int, int]
    lossless: bool
    notes: list[str]


def _decode(data: bytes, rules: PictureRules, name: str) -> _Source:
    notes: list[str] = []
    try:
        source = Image.open(io.BytesIO(data), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(name) from error
    except Exception as error:  # decoders raise whatever hostile bytes lead them to
        raise _unreadable(data, name) from error

    with source:
        if source.width * source.height > MAX_PIXELS:
            raise _too_many_pixels(name, _pixels(source.width, source.height))
        source_format = source.format or ""
        if source_format in _ANIMATED and getattr(source, "is_animated", False):
            notes.append(f"{name} is animated; only its first frame was used.")
        try:
            width, height = source.size
            # JPEG alone can decode straight to a smaller size; others ignore this.
            source.draft(source.mode, (rules.max_side, rules.max_side))
            source.load()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise _too_many_pixels(name) from error
        except Exception as error:  # as above
            raise _cut_off(name) from error
        image = _upright(source)
        turned = image.size != source.size
        profile = source.info.get("icc_profile")

    image = _to_eight_bits(image)
    longest = max(image.size)
    if longest > 2 * rules.max_side:
        image = image.reduce(longest // (2 * rules.max_side) + 1)
    image = _to_srgb(image, profile if isinstance(profile, bytes) else None)
    if image.mode == "RGBA":
        image, colour = _flatten(image)
        if colour:
            notes.append(f"The transparent parts of {_within(name)} were filled with {colour}.")
    return _Source(image, (height, width) if turned else (width, height), source_format in _LOSSLESS, notes)


def _upright(source: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(source)
    except Exception:  # noqa: BLE001 - a broken EXIF block must not cost the picture
        return source.copy()


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """One of the modes L, RGB, RGBA and CMYK, whatever the file stored."""
    if image.mode.startswith("I"):
        # 16 bits a pixel, which convert() would clip instead of scale.
        return image.convert("I").point(lambda value: value * (1 / 256), "L")
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    if profile is None:
        return image.convert(mode)
    colours = image.convert("RGB") if image.mode == "RGBA" else image
    try:
        converted = ImageCms.profileToProfile(
            colours,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image.convert(mode)  # a profile of another colour space, or none at all
    if converted is not None and image.mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    return converted or image.convert(mode)


def _flatten(image: Image.Image) -> tuple[Image.Image, str | None]:
    """On white, unless what can be seen is itself nearly white: a pale logo needs a dark ground."""
    alpha = image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return image.convert("RGB"), None
    seen = ImageStat.Stat(image.convert("L"), alpha.point(lambda value: 255 if value > 127 else 0))
    pale = seen.count[0] > 0 and seen.mean[0] > 215
    ground = Image.new("RGB", image.size, _DARK if pale else _WHITE)
    ground.paste(image, mask=alpha)
    return ground, "dark grey" if pale else "white"


# Fitting the model's rules


@dataclass(frozen=True, slots=True)
class _Plan:
    """The size to send, the size of the picture in its middle, and what the person is told."""

    canvas: tuple[int, int]
    inner: tuple[int, int]
    notes: tuple[str, ...]


def _plan(width: int, height: int, rules: PictureRules, name: str) -> _Plan:
    notes: list[str] = []
    ratio = width / height
    excess = max(rules.min_ratio / ratio, ratio / rules.max_ratio)
    if excess > _MOST_PADDED:
        raise _refusal(
            f"{name} is {_ratio(ratio)} (width to height), and this model takes "
            f"{_ratio(rules.min_ratio)} to {_ratio(rules.max_ratio)}. Crop it and attach it again."
        )
    full_width, full_height = float(width), float(height)
    if ratio < rules.min_ratio:
        full_width = height * rules.min_ratio
    elif ratio > rules.max_ratio:
        full_height = width / rules.max_ratio
    padded = (full_width, full_height) != (width, height)

    scale = max(1.0, rules.min_side / min(full_width, full_height))
    if scale > _MOST_ENLARGED:
        raise _refusal(
            f"{name} is {_pixels(width, height)}, and this model needs at least "
            f"{_pixels(rules.min_side, rules.min_side)}; enlarged that much, it would only be a blur. "
            "Attach a larger one."
        )
    scale = min(scale, rules.max_side / max(full_width, full_height))
    canvas = _whole(full_width * scale, full_height * scale, rules)
    if canvas is None:
        raise _refusal(
            f"{name} is {_pixels(width, height)}, and no size of that shape fits this model, "
            f"which takes sides of {rules.min_side} to {rules.max_side} pixels. "
            "Crop it closer to a square and attach it again."
        )

    if scale > 1:
        notes.append(
            f"{name} was enlarged from {_pixels(width, height)}; a larger original gives a sharper clip."
        )
    elif scale < 1:
        notes.append(
            f"{name} was scaled down from {_pixels(width, height)}, because this model takes "
            f"up to {rules.max_side} pixels a side."
        )
    inner = canvas
    if padded:
        inner = (
            max(1, min(canvas[0], round(width * scale))),
            max(1, min(canvas[1], round(height * scale))),
        )
        limit = rules.min_ratio if ratio < rules.min_ratio else rules.max_ratio
        notes.append(
            f"{name} is {_ratio(ratio)} (width to height), "
            f"so blurred edges were added to make it {_ratio(limit)}."
        )
    return _Plan(canvas, inner, tuple(notes))


def _whole(width: float, height: float, rules: PictureRules) -> tuple[int, int] | None:
    """The nearest whole pixels within the rules, or None where there are none."""
    across, down = (min(rules.max_side, max(rules.min_side, 1, round(side))) for side in (width, height))
    if across / down > rules.max_ratio:
        across = math.floor(down * rules.max_ratio)
    elif across / down < rules.min_ratio:
        down = math.floor(across / rules.min_ratio)
    sides_fit = all(max(1, rules.min_side) <= side <= rules.max_side for side in (across, down))
    return (across, down) if sides_fit and rules.min_ratio <= across / down <= rules.max_ratio else None


def _lay_out(image: Image.Image, plan: _Plan) -> Image.Image:
    """A fresh image, so that no metadata travels along."""
    canvas = Image.new("RGB", plan.canvas)
    if plan.inner != plan.canvas:
        canvas.paste(_backdrop(image, plan.canvas))
    inner = image if image.size == plan.inner else image.resize(plan.inner, Image.Resampling.LANCZOS)
    canvas.paste(inner, ((plan.canvas[0] - plan.inner[0]) // 2, (plan.canvas[1] - plan.inner[1]) // 2))
    return canvas


def _backdrop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture itself, filling the frame, blurred and a little darker: bars would stay in the clip."""
    small = (max(1, size[0] // 8), max(1, size[1] // 8))
    cover = ImageOps.fit(image, small, Image.Resampling.BOX)
    blurred = cover.filter(ImageFilter.GaussianBlur(max(2, max(small) / 24)))
    return blurred.point(lambda value: value * 0.8).resize(size, Image.Resampling.BICUBIC)


# Encoding


def _encode(
    canvas: Image.Image, rules: PictureRules, name: str, *, lossless: bool
) -> tuple[bytes, str, tuple[int, int]]:
    jpeg, png = "image/jpeg" in rules.media_types, "image/png" in rules.media_types
    if png and (lossless or not jpeg):
        data = _png(canvas)
        if len(data) <= (min(rules.max_bytes, _LARGEST_PNG) if jpeg else rules.max_bytes):
            return data, "image/png", canvas.size
    for image in _ever_smaller(canvas, rules):
        if jpeg:
            for quality in _QUALITIES:
                data = _jpeg(image, quality)
                if len(data) <= rules.max_bytes:
                    return data, "image/jpeg", image.size
        elif png:
            data = _png(image)
            if len(data) <= rules.max_bytes:
                return data, "image/png", image.size
    raise _refusal(
        f"{name} cannot be made small enough: this model takes files up to {_megabytes(rules.max_bytes)}. "
        "Attach a simpler or smaller one."
    )


def _ever_smaller(canvas: Image.Image, rules: PictureRules) -> Iterator[Image.Image]:
    yield canvas
    for step in range(1, _SHRINKINGS):
        size = _whole(canvas.width * 0.8**step, canvas.height * 0.8**step, rules)
        if size is None or max(size) >= max(canvas.size):
            return
        yield canvas.resize(size, Image.Resampling.LANCZOS)


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _jpeg(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


# Words


def _refusal(sentences: str) -> Refusal:
    return Refusal(f"{sentences} Nothing was charged.")


def _too_many_pixels(name: str, size: str = "") -> Refusal:
    return _refusal(
        f"{name} is {size + ', which is ' if size else ''}more than {MAX_PIXELS // 1_000_000} megapixels. "
        "Scale it down and attach it again."
    )


def _cut_off(name: str) -> Refusal:
    return _refusal(
        f"{name} cannot be read to its end: the file seems to be cut off or damaged. "
        "Save or download it again and attach that."
    )


def _unreadable(data: bytes, name: str) -> Refusal:
    if not data:
        return _refusal(f"{name} is an empty file. Attach it again.")
    if _starts_like_a_picture(data):
        return _cut_off(name)
    return _refusal(
        f"{name} cannot be read: whatever its name says, the file is not a PNG, JPEG, WebP, GIF, HEIC "
        "or AVIF. Save it as one of these and attach it again."
    )


def _starts_like_a_picture(data: bytes) -> bool:
    return (
        data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8"))
        or (data.startswith(b"RIFF") and data[8:12] == b"WEBP")
        or (data[4:8] == b"ftyp" and data[8:12] in _PICTURE_BRANDS)
    )


def _within(name: str) -> str:
    return name[:1].lower() + name[1:]


def _pixels(width: int, height: int) -> str:
    return f"{width:,} × {height:,} pixels"


def _ratio(ratio: float) -> str:
    return f"{ratio:.3g}:1" if ratio >= 1 else f"1:{1 / ratio:.3g}"


def _megabytes(size: int) -> str:
    if size < 1024 * 1024:
        return f"{size / 1024:.0f} kB"
    return f"{size / (1024 * 1024):.1f}".removesuffix(".0") + " MB"
