"""The pictures that the demo's clips of the past are made from, drawn by a few lines each and always the same."""

import io
import math

from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 640, 400
_FINER = 2  # drawn larger and made smaller, so that edges are smooth


def lighthouse() -> bytes:
    """A lighthouse at night, its beam over the water. A PNG file."""
    image = _gradient((14, 20, 48), (72, 68, 110))
    draw = ImageDraw.Draw(image)
    for number in range(60):  # stars: scattered, and every time the same
        x, y = (number * 197) % WIDTH, (number * 83) % 210
        draw.ellipse(_box(x, y, 0.6 + number % 3 * 0.4), fill=(230, 230, 250))
    beam = Image.new("L", image.size)
    ImageDraw.Draw(beam).polygon(_scaled((458, 128), (0, 40), (0, 190)), fill=110)
    image.paste((255, 236, 170), mask=beam.filter(ImageFilter.GaussianBlur(10)))
    draw.rectangle(_scaled((0, 290), (WIDTH, HEIGHT)), fill=(18, 34, 66))
    _waves(draw, 300, (46, 72, 112))
    draw.polygon(
        _scaled((330, HEIGHT), (400, 322), (450, 300), (560, 306), (WIDTH, 340), (WIDTH, HEIGHT)),
        fill=(24, 24, 34),
    )
    draw.polygon(_scaled((436, 306), (446, 150), (474, 150), (484, 306)), fill=(232, 226, 214))
    for top in (186, 250):
        draw.polygon(
            _scaled(
                (444 - top / 40, top + 28),
                (446 - top / 60, top),
                (474 + top / 60, top),
                (476 + top / 40, top + 28),
            ),
            fill=(186, 60, 52),
        )
    draw.rectangle(_scaled((440, 142), (480, 152)), fill=(40, 40, 52))
    draw.rectangle(_scaled((448, 116), (472, 142)), fill=(255, 240, 180))
    draw.polygon(_scaled((442, 117), (460, 98), (478, 117)), fill=(150, 46, 42))
    return _png(image)


def harbour() -> bytes:
    """Sailing boats before a low sun. A PNG file."""
    image = _gradient((250, 190, 120), (250, 226, 180))
    draw = ImageDraw.Draw(image)
    draw.ellipse(_box(210, 206, 44), fill=(255, 246, 214))
    draw.polygon(
        _scaled((0, 240), (120, 190), (250, 236), (420, 182), (WIDTH, 232), (WIDTH, 250), (0, 250)),
        fill=(156, 116, 126),
    )
    draw.rectangle(_scaled((0, 244), (WIDTH, HEIGHT)), fill=(92, 118, 148))
    for number in range(12):  # the sun on the water
        half = 40 - number * 2 + number % 3 * 6
        draw.rectangle(
            _scaled((210 - half, 252 + number * 11), (210 + half, 256 + number * 11)), fill=(244, 214, 160)
        )
    _waves(draw, 262, (118, 144, 168))
    for x, y, size, hull in (
        (360, 300, 1.0, (178, 62, 54)),
        (500, 270, 0.6, (44, 70, 98)),
        (110, 330, 1.3, (52, 92, 84)),
    ):
        draw.polygon(
            _scaled(
                (x - 60 * size, y),
                (x + 60 * size, y),
                (x + 42 * size, y + 22 * size),
                (x - 46 * size, y + 22 * size),
            ),
            fill=hull,
        )
        draw.rectangle(_scaled((x - 2 * size, y - 118 * size), (x + 2 * size, y)), fill=(70, 52, 44))
        draw.polygon(
            _scaled(
                (x + 6 * size, y - 112 * size), (x + 6 * size, y - 10 * size), (x + 60 * size, y - 10 * size)
            ),
            fill=(250, 246, 236),
        )
        draw.polygon(
            _scaled(
                (x - 6 * size, y - 96 * size), (x - 6 * size, y - 10 * size), (x - 44 * size, y - 10 * size)
            ),
            fill=(236, 226, 208),
        )
    return _png(image)


def mountains() -> bytes:
    """A lake between mountains. A PNG file."""
    image = _gradient((126, 180, 220), (224, 238, 244))
    draw = ImageDraw.Draw(image)
    for base, height, colour, phase in (
        (230, 120, (146, 168, 192), 0.4),
        (246, 84, (96, 128, 148), 2.1),
        (258, 46, (58, 96, 92), 4.0),
    ):
        ridge = [
            (x, base - height * (0.5 + 0.3 * math.sin(x / 71 + phase) + 0.2 * math.sin(x / 23 + 2 * phase)))
            for x in range(0, WIDTH + 8, 8)
        ]
        draw.polygon(_scaled((0, 270), *ridge, (WIDTH, 270)), fill=colour)
    lake = image.crop((0, 0, image.width, 262 * _FINER)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    image.paste(Image.blend(lake, Image.new("RGB", lake.size, (60, 110, 140)), 0.45), (0, 262 * _FINER))
    _waves(draw, 274, (150, 186, 204))
    return _png(image)


def _gradient(top: tuple[int, int, int], bottom: tuple[int, int, int]) -> Image.Image:
    size = (WIDTH * _FINER, HEIGHT * _FINER)
    down = Image.linear_gradient("L").resize(size)
    return Image.composite(Image.new("RGB", size, bottom), Image.new("RGB", size, top), down)


def _waves(draw: ImageDraw.ImageDraw, top: int, colour: tuple[int, int, int]) -> None:
    for number in range(26):
        x, y = (number * 149) % WIDTH, top + (number * 61) % (HEIGHT - top)
        draw.line(_scaled((x, y), (x + 14 + number % 5 * 8, y)), fill=colour, width=_FINER)


def _box(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    return _scaled((x - radius, y - radius), (x + radius, y + radius))


def _scaled(*points: tuple[float, float]) -> list[tuple[float, float]]:
    return [(x * _FINER, y * _FINER) for x, y in points]


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(file, "PNG")
    return file.getvalue()
