"""What people attach, and what becomes of it."""

import io
import re
import struct
import zlib
from pathlib import Path

import pillow_heif
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from bot.errors import Refusal
from bot.media.picture import MAX_BYTES, normalise, refuse_by_size
from bot.providers.base import Picture, PictureRules

DATA = Path(__file__).parent.parent / "data"
KLING = PictureRules(min_side=300, min_ratio=1 / 2.5, max_ratio=2.5)
ANY = PictureRules()

RED, GREEN, BLUE = (220, 30, 30), (30, 200, 60), (40, 60, 210)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def plain(width: int, height: int, colour: tuple[int, int, int] = RED) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def noise(width: int, height: int) -> Image.Image:
    return Image.merge("RGB", [Image.effect_noise((width, height), 120) for _ in range(3)])


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 64))
        + chunk(b"IEND", b"")
    )


def opened(picture: Picture) -> Image.Image:
    image = Image.open(io.BytesIO(picture.data))
    image.load()
    return image


def is_like(pixel: object, colour: tuple[int, int, int]) -> bool:
    assert isinstance(pixel, tuple)
    return all(abs(a - b) < 20 for a, b in zip(pixel, colour, strict=True))


async def refusal(data: bytes, rules: PictureRules = KLING) -> str:
    with pytest.raises(Refusal) as caught:
        await normalise(data, rules)
    return str(caught.value)


async def picture_or_sentence(data: bytes, rules: PictureRules) -> Picture | str:
    try:
        return await normalise(data, rules)
    except Refusal as refused:
        return str(refused)


# What is read


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "AVIF", "BMP"])
async def test_reads_what_discord_lets_people_attach(file_format: str) -> None:
    """Every common format becomes a PNG or JPEG of the same size and colour."""
    picture = await normalise(encoded(plain(400, 320), file_format), KLING)

    assert picture.media_type in KLING.media_types
    assert (picture.width, picture.height) == opened(picture).size == (400, 320)
    assert is_like(opened(picture).getpixel((200, 160)), RED)
    assert picture.notes == ()


async def test_reads_heic() -> None:
    """A telephone's HEIC becomes a JPEG."""
    out = io.BytesIO()
    pillow_heif.from_pillow(plain(400, 320, BLUE)).save(out)

    picture = await normalise(out.getvalue(), KLING)

    assert picture.media_type == "image/jpeg"
    assert is_like(opened(picture).getpixel((200, 160)), BLUE)


@pytest.mark.parametrize("name", ["harbour.jpg", "lighthouse.png"])
async def test_reads_the_committed_pictures(name: str) -> None:
    """The pictures that the other tests use pass as they are."""
    picture = await normalise((DATA / name).read_bytes(), KLING)

    assert picture.notes == ()


async def test_keeps_lossless_pictures_lossless() -> None:
    """A PNG stays a PNG, a JPEG a JPEG."""
    drawn = await normalise(encoded(plain(400, 400), "PNG"), KLING)
    photographed = await normalise(encoded(plain(400, 400), "JPEG"), KLING)

    assert (drawn.media_type, photographed.media_type) == ("image/png", "image/jpeg")


async def test_sends_only_types_that_the_model_takes() -> None:
    """A PNG for a model that takes JPEG alone is sent as JPEG, and the other way round."""
    jpeg = await normalise(
        encoded(plain(400, 400), "PNG"), PictureRules(media_types=frozenset({"image/jpeg"}))
    )
    png = await normalise(
        encoded(plain(400, 400), "JPEG"), PictureRules(media_types=frozenset({"image/png"}))
    )

    assert (jpeg.media_type, opened(jpeg).format) == ("image/jpeg", "JPEG")
    assert (png.media_type, opened(png).format) == ("image/png", "PNG")


async def test_uses_the_first_frame_of_an_animation() -> None:
    """An animated GIF gives its first frame, and says so."""
    data = encoded(plain(400, 400, GREEN), "GIF", save_all=True, append_images=[plain(400, 400, BLUE)])

    picture = await normalise(data, KLING)

    assert is_like(opened(picture).getpixel((10, 10)), GREEN)
    assert picture.notes == ("The picture is animated; only its first frame was used.",)


async def test_turns_pictures_upright() -> None:
    """A telephone held sideways stores the turn in EXIF: it is applied, then dropped."""
    sideways = plain(600, 400, BLUE)
    sideways.paste(RED, (0, 0, 300, 400))
    exif = Image.Exif()
    exif[0x0112] = 6

    picture = await normalise(encoded(sideways, "JPEG", exif=exif), KLING)

    assert (picture.width, picture.height) == (400, 600)
    assert is_like(opened(picture).getpixel((200, 100)), RED)
    assert is_like(opened(picture).getpixel((200, 500)), BLUE)
    assert not opened(picture).getexif()


async def test_strips_metadata() -> None:
    """Where and with what a picture was taken does not travel to the provider."""
    exif = Image.Exif()
    exif[0x010F] = "Camera of a person"
    data = encoded(plain(400, 400), "JPEG", exif=exif, comment=b"at home", icc_profile=_srgb())

    picture = await normalise(data, KLING)

    assert b"Camera" not in picture.data
    assert b"at home" not in picture.data
    assert "icc_profile" not in opened(picture).info


def _srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


async def test_survives_a_broken_colour_profile() -> None:
    """A colour profile that cannot be read is left aside."""
    picture = await normalise(encoded(plain(400, 400), "PNG", icc_profile=b"not a profile"), KLING)

    assert is_like(opened(picture).getpixel((10, 10)), RED)


async def test_fills_transparency_with_white() -> None:
    """Models take no alpha: what was transparent becomes white, and the person is told."""
    logo = Image.new("RGBA", (400, 400))
    logo.paste((*BLUE, 255), (100, 100, 300, 300))

    picture = await normalise(encoded(logo, "PNG"), KLING)

    assert opened(picture).mode == "RGB"
    assert is_like(opened(picture).getpixel((5, 5)), (255, 255, 255))
    assert is_like(opened(picture).getpixel((200, 200)), BLUE)
    assert picture.notes == ("The transparent parts of the picture were filled with white.",)


async def test_puts_a_pale_logo_on_dark() -> None:
    """White lettering on a transparent ground would vanish on white."""
    logo = Image.new("RGBA", (400, 400))
    logo.paste((255, 255, 255, 255), (100, 100, 300, 300))

    picture = await normalise(encoded(logo, "PNG"), KLING)

    assert is_like(opened(picture).getpixel((5, 5)), (30, 31, 34))
    assert picture.notes == ("The transparent parts of the picture were filled with dark grey.",)


@pytest.mark.parametrize(
    ("image", "file_format"),
    [
        (Image.new("CMYK", (400, 400), (0, 255, 255, 0)), "JPEG"),
        (Image.new("P", (400, 400), 3), "PNG"),
        (Image.new("1", (400, 400), 1), "PNG"),
        (Image.new("LA", (400, 400), (128, 255)), "PNG"),
    ],
    ids=["CMYK", "palette", "one bit", "grey with alpha"],
)
async def test_converts_every_kind_of_pixel_to_rgb(image: Image.Image, file_format: str) -> None:
    """However the file stores its colours, the model gets RGB."""
    picture = await normalise(encoded(image, file_format), KLING)

    assert opened(picture).mode == "RGB"


async def test_keeps_the_tones_of_sixteen_bits() -> None:
    """A middle grey of 16 bits is a middle grey of 8, not white."""
    picture = await normalise(encoded(Image.new("I;16", (400, 400), 0x8000), "PNG"), KLING)

    assert is_like(opened(picture).getpixel((10, 10)), (128, 128, 128))


# Size and shape


async def test_enlarges_a_small_picture() -> None:
    """200 × 200 for a model that needs 300 × 300 becomes just that, and the person is told."""
    picture = await normalise(encoded(plain(200, 200), "PNG"), KLING)

    assert (picture.width, picture.height) == (300, 300)
    assert picture.notes == (
        "The picture was enlarged from 200 × 200 pixels; a larger original gives a sharper clip.",
    )


async def test_refuses_a_tiny_picture() -> None:
    """More than doubled, it would only be a blur."""
    sentence = await refusal(encoded(plain(100, 100), "PNG"))

    assert sentence == (
        "The picture is 100 × 100 pixels, and this model needs at least 300 × 300 pixels; enlarged that "
        "much, it would only be a blur. Attach a larger one. Nothing was charged."
    )


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
async def test_scales_a_large_picture_down(file_format: str) -> None:
    """A picture over the model's longest side keeps its shape, and the note names its real size."""
    picture = await normalise(encoded(plain(6000, 3000), file_format), PictureRules(max_side=1000))

    assert (picture.width, picture.height) == (1000, 500)
    assert picture.notes == (
        "The picture was scaled down from 6,000 × 3,000 pixels, "
        "because this model takes up to 1000 pixels a side.",
    )


async def test_pads_a_shape_just_outside_the_range() -> None:
    """1:3 for a limit of 1:2.5 gets blurred edges; the picture stays whole in the middle."""
    strip = plain(400, 1200, GREEN)

    picture = await normalise(encoded(strip, "PNG"), KLING)

    assert (picture.width, picture.height) == (480, 1200)
    assert is_like(opened(picture).getpixel((240, 600)), GREEN)
    assert picture.notes == (
        "The picture is 1:3 (width to height), so blurred edges were added to make it 1:2.5.",
    )


async def test_refuses_a_strip() -> None:
    """1:5 is too far from 1:2.5 to pad; the sentence names both."""
    sentence = await refusal(encoded(plain(400, 2000), "PNG"))

    assert sentence == (
        "The picture is 1:5 (width to height), and this model takes 1:2.5 to 2.5:1. "
        "Crop it and attach it again. Nothing was charged."
    )


async def test_brings_a_heavy_picture_under_the_limit() -> None:
    """First less quality, then fewer pixels; where it came to that, the person is told."""
    rules = PictureRules(max_bytes=60_000)

    picture = await normalise(encoded(noise(600, 600), "PNG"), rules)

    assert len(picture.data) <= rules.max_bytes
    assert picture.media_type == "image/jpeg"
    assert picture.width < 600
    assert "so that the file fits this model's 59 kB." in picture.notes[0]


async def test_refuses_what_cannot_be_made_light_enough() -> None:
    """A limit that no version meets ends in a sentence, not in an endless search."""
    sentence = await refusal(encoded(noise(320, 320), "PNG"), PictureRules(min_side=300, max_bytes=2_000))

    assert sentence.startswith("The picture cannot be made small enough: this model takes files up to 2 kB.")


# What is refused


async def test_refuses_text_named_png() -> None:
    """The bytes decide, whatever the name says."""
    sentence = await refusal(b"once upon a time there was a picture\n" * 50)

    assert sentence == (
        "The picture cannot be read: whatever its name says, the file is not a PNG, JPEG, WebP, GIF, HEIC or "
        "AVIF. Save it as one of these and attach it again. Nothing was charged."
    )


async def test_refuses_an_empty_file() -> None:
    """Nothing to decode."""
    assert await refusal(b"") == "The picture is an empty file. Attach it again. Nothing was charged."


@pytest.mark.parametrize("share", [0.6, 0.0005])
async def test_refuses_a_truncated_jpeg(share: float) -> None:
    """Cut in the middle or in the header: a picture with its lower half grey would be paid for."""
    whole = (DATA / "harbour.jpg").read_bytes()

    sentence = await refusal(whole[: int(len(whole) * share)])

    assert sentence == (
        "The picture cannot be read to its end: the file seems to be cut off or damaged. "
        "Save or download it again and attach that. Nothing was charged."
    )


async def test_refuses_thirty_megabytes() -> None:
    """Too many bytes are refused before any of them is decoded."""
    sentence = await refusal(b"\x89PNG\r\n\x1a\n" + bytes(30 * 1024 * 1024))

    assert sentence == (
        "The picture is 30 MB, and 25 MB is the most I can take. "
        "Save it smaller, for example as a JPEG, and attach it again. Nothing was charged."
    )


def test_refuses_by_declared_size() -> None:
    """Discord says how large a file is, so it need not be downloaded to be refused."""
    refuse_by_size(MAX_BYTES)

    with pytest.raises(Refusal, match=r"^The end picture is 25\.1 MB.*Nothing was charged\.$"):
        refuse_by_size(MAX_BYTES + 100_000, name="The end picture")


@pytest.mark.parametrize("side", [7_100, 9_900, 20_000])
async def test_refuses_a_decompression_bomb_by_its_header(side: int) -> None:
    """A few bytes that claim hundreds of megapixels are never unpacked."""
    sentence = await refusal(png_claiming(side, side))

    assert re.fullmatch(
        r"The picture is ([\d,]+ × [\d,]+ pixels, which is )?more than 50 megapixels\. "
        r"Scale it down and attach it again\. Nothing was charged\.",
        sentence,
    )


async def test_names_the_picture_it_refuses() -> None:
    """With two pictures in one command the sentence says which."""
    with pytest.raises(Refusal, match=r"^The end picture cannot be read"):
        await normalise(b"no picture", KLING, name="The end picture")


# Whatever comes


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    min_side=st.integers(1, 200),
    max_side=st.integers(16, 400),
    narrowest=st.floats(0.1, 1),
    widest=st.floats(1, 10),
    max_bytes=st.integers(500, 40_000),
    alpha=st.booleans(),
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_the_result_is_within_the_rules_or_refused(
    width: int,
    height: int,
    min_side: int,
    max_side: int,
    narrowest: float,
    widest: float,
    max_bytes: int,
    alpha: bool,
) -> None:
    """No size and no rules lead to anything but a lawful picture or a sentence with its cost."""
    assume(min_side <= max_side)
    rules = PictureRules(
        min_side=min_side, max_side=max_side, min_ratio=narrowest, max_ratio=widest, max_bytes=max_bytes
    )
    image = Image.effect_noise((width, height), 60).convert("RGBA" if alpha else "RGB")

    picture = await picture_or_sentence(encoded(image, "PNG"), rules)

    if isinstance(picture, str):
        assert picture.startswith("The picture ")
        assert picture.endswith(". Nothing was charged.")
        return
    image = opened(picture)
    assert image.size == (picture.width, picture.height)
    assert Image.MIME[image.format or ""] == picture.media_type in rules.media_types
    assert min_side <= min(image.size) <= max(image.size) <= max_side
    assert narrowest <= image.width / image.height <= widest
    assert len(picture.data) <= max_bytes
    assert all(note.endswith(".") for note in picture.notes)


@given(
    data=st.binary(max_size=400),
    start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a"]),
)
@settings(max_examples=150, deadline=None)
async def test_no_bytes_do_worse_than_a_refusal(data: bytes, start: bytes) -> None:
    """Hostile files meet a sentence, never a traceback."""
    answer = await picture_or_sentence(start + data, ANY)

    assert isinstance(answer, Picture) or answer.endswith("Nothing was charged.")
