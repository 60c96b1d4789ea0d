"""Draw the pictures in tests/data: `python -m scripts.make_test_pictures`.

They are drawn, not photographed, so that anyone may use them for anything.
"""

# ruff: noqa: S311 - seeded on purpose: the same pictures every time

import math
import random
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

HERE = Path(__file__).parent.parent / "tests" / "data"
OVERSAMPLED = 2

Colour = tuple[int, int, int]


def sky(size: tuple[int, int], top: Colour, middle: Colour, bottom: Colour) -> Image.Image:
    fade = Image.linear_gradient("L").resize(size, Image.Resampling.BICUBIC)
    return ImageOps.colorize(fade, top, bottom, mid=middle)


def glow(image: Image.Image, at: tuple[float, float], radius: float, colour: Colour, strength: float) -> None:
    side = round(radius * 2)
    soft = Image.radial_gradient("L").resize((side, side), Image.Resampling.BICUBIC)
    soft = soft.point(lambda far: max(0.0, 1 - far / 178) ** 2 * 255 * strength)
    mask = Image.new("L", image.size)
    mask.paste(soft, (round(at[0] - radius), round(at[1] - radius)))
    image.paste(colour, mask=mask)


def ridge(image: Image.Image, base: float, rise: float, colour: Colour, seed: int) -> None:
    """A mountain line: a few waves, then smaller ones, filled down to the lower edge."""
    chance = random.Random(seed)
    waves = [
        (rise / n**1.25, n * chance.uniform(0.8, 1.3), chance.uniform(0, math.tau)) for n in range(1, 26)
    ]
    width, height = image.size
    line = [
        (x, base - sum(size * math.sin(math.tau * turns * x / width + shift) for size, turns, shift in waves))
        for x in range(0, width + 4, 4)
    ]
    ImageDraw.Draw(image).polygon([*line, (width, height), (0, height)], fill=colour)


def mirror(image: Image.Image, line: int, tint: Colour, seed: int) -> None:
    """Everything under `line` becomes water: what stands above it, upside down, darker and rippled."""
    chance = random.Random(seed)
    width, height = image.size
    depth = height - line
    above = image.crop((0, max(0, line - depth), width, line)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    above = above.resize((width, depth)).filter(ImageFilter.GaussianBlur(5))
    water = above.copy()
    for y in range(0, depth, 2):
        sway = (1 + y / depth * 9) * (
            math.sin(y * 0.11) + 0.8 * math.sin(y * 0.047 + 2) + chance.uniform(-0.8, 0.8)
        )
        water.paste(above.crop((0, y, width, y + 2)), (round(sway), y))
    water = Image.blend(water, Image.new("RGB", water.size, tint), 0.34)
    image.paste(water, (0, line))
    pen = ImageDraw.Draw(image, "RGBA")
    for _ in range(420):
        y = line + depth * chance.random() ** 1.4
        length = 14 + (y - line) / depth * 90 * chance.random()
        x = chance.uniform(0, width)
        pen.line((x, y, x + length, y), fill=(255, 226, 190, chance.randrange(12, 46)), width=2)


def boat(pen: ImageDraw.ImageDraw, x: float, y: float, size: float, hull: Colour, sail: Colour) -> None:
    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        return [(x + dx * size, y + dy * size) for dx, dy in points]

    pen.polygon(at((-1.0, -0.28), (1.15, -0.34), (0.8, 0.06), (-0.75, 0.06)), fill=hull)
    pen.line(at((0.05, -0.3), (0.05, -2.7)), fill=hull, width=max(2, round(size * 0.06)))
    pen.polygon(at((0.12, -2.62), (0.98, -0.55), (0.12, -0.48)), fill=sail)
    pen.polygon(at((-0.03, -2.45), (-0.72, -0.5), (-0.03, -0.46)), fill=tuple(round(c * 0.86) for c in sail))


def town(pen: ImageDraw.ImageDraw, left: float, right: float, ground: float, unit: float, seed: int) -> None:
    chance = random.Random(seed)
    x = left
    while x < right:
        width, height = unit * chance.uniform(0.8, 1.5), unit * chance.uniform(1.3, 2.9)
        shade = chance.randrange(24, 44)
        wall = (shade + 22, shade, shade + 16)
        pen.rectangle((x, ground - height, x + width, ground + 8), fill=wall)
        pen.polygon(
            (
                (x - 3, ground - height),
                (x + width / 2, ground - height - unit * 0.5),
                (x + width + 3, ground - height),
            ),
            fill=(shade + 4, shade - 12, shade),
        )
        for row in range(int(height / (unit * 0.55))):
            for column in (0.2, 0.6):
                if chance.random() < 0.55:
                    wx, wy = x + width * column, ground - height + unit * (0.2 + row * 0.55)
                    pen.rectangle((wx, wy, wx + unit * 0.2, wy + unit * 0.27), fill=(255, 206, 122))
        x += width


def harbour(width: int = 1280, height: int = 853) -> Image.Image:
    w, h = width * OVERSAMPLED, height * OVERSAMPLED
    line = round(h * 0.62)
    image = sky((w, line), (38, 34, 84), (196, 92, 108), (255, 190, 118))
    canvas = Image.new("RGB", (w, h))
    canvas.paste(image)
    sun = (w * 0.545, line * 0.80)
    glow(canvas, sun, h * 0.75, (255, 196, 120), 0.75)
    glow(canvas, sun, h * 0.22, (255, 240, 196), 0.95)
    pen = ImageDraw.Draw(canvas)
    pen.ellipse((sun[0] - 74, sun[1] - 74, sun[0] + 74, sun[1] + 74), fill=(255, 246, 214))
    for base, rise, colour, seed in (
        (line * 0.80, h * 0.060, (176, 92, 116), 3),
        (line * 0.89, h * 0.045, (122, 64, 104), 8),
        (line * 0.965, h * 0.028, (76, 44, 86), 21),
    ):
        ridge(canvas, base, rise, colour, seed)
    town(ImageDraw.Draw(canvas), w * 0.02, w * 0.36, line, h * 0.034, 5)
    town(ImageDraw.Draw(canvas), w * 0.82, w * 0.99, line, h * 0.028, 9)
    mirror(canvas, line, (48, 32, 78), 4)
    glow(canvas, (sun[0], line + h * 0.05), h * 0.24, (255, 190, 120), 0.35)
    pen = ImageDraw.Draw(canvas)
    boat(pen, w * 0.47, h * 0.735, h * 0.055, (46, 26, 52), (255, 222, 178))
    boat(pen, w * 0.78, h * 0.685, h * 0.030, (52, 30, 58), (250, 196, 160))
    boat(pen, w * 0.24, h * 0.86, h * 0.088, (34, 20, 42), (255, 232, 196))
    return canvas.resize((width, height), Image.Resampling.LANCZOS)


def lighthouse(width: int = 600, height: int = 800) -> Image.Image:
    w, h = width * OVERSAMPLED, height * OVERSAMPLED
    line = round(h * 0.74)
    canvas = Image.new("RGB", (w, h))
    canvas.paste(sky((w, line), (10, 20, 52), (34, 62, 108), (128, 150, 168)))
    chance = random.Random(2)
    pen = ImageDraw.Draw(canvas, "RGBA")
    for _ in range(150):
        x, y, r = chance.uniform(0, w), line * chance.random() ** 1.6 * 0.8, chance.choice((1, 1, 2, 3))
        pen.ellipse((x - r, y - r, x + r, y + r), fill=(255, 250, 232, chance.randrange(90, 240)))
    ridge(canvas, line * 0.985, h * 0.012, (44, 66, 98), 12)
    mirror(canvas, line, (14, 28, 58), 7)

    lamp = (w * 0.58, h * 0.285)
    beam = Image.new("L", (w, h))
    ImageDraw.Draw(beam).polygon((lamp, (-w * 0.1, h * 0.10), (-w * 0.1, h * 0.30)), fill=120)
    ImageDraw.Draw(beam).polygon((lamp, (w * 1.1, h * 0.33), (w * 1.1, h * 0.42)), fill=90)
    beam = ImageChops.multiply(beam.filter(ImageFilter.GaussianBlur(16)), Image.new("L", (w, h), 150))
    canvas.paste((255, 236, 176), mask=beam)

    pen = ImageDraw.Draw(canvas)
    pen.polygon(
        ((w * 0.26, h * 0.86), (w * 0.36, h * 0.775), (w * 0.47, h * 0.745), (w * 0.70, h * 0.74),
         (w * 0.84, h * 0.79), (w * 0.97, h * 0.87), (w * 1.0, h * 0.93), (w * 0.2, h * 0.93)),
        fill=(20, 24, 40),
    )  # fmt: skip
    foot, top = h * 0.75, h * 0.335
    for band in range(6):
        upper, lower = band / 6, (band + 1) / 6
        y0, y1 = top + (foot - top) * upper, top + (foot - top) * lower
        half0, half1 = w * (0.052 + 0.038 * upper), w * (0.052 + 0.038 * lower)
        pen.polygon(
            ((lamp[0] - half0, y0), (lamp[0] + half0, y0), (lamp[0] + half1, y1), (lamp[0] - half1, y1)),
            fill=(196, 66, 58) if band % 2 == 0 else (232, 226, 214),
        )
    shade = Image.new("L", (w, h))
    ImageDraw.Draw(shade).polygon(
        (
            (lamp[0] + w * 0.008, top),
            (lamp[0] + w * 0.052, top),
            (lamp[0] + w * 0.09, foot),
            (lamp[0] + w * 0.02, foot),
        ),
        fill=120,
    )
    canvas.paste((16, 18, 44), mask=shade.filter(ImageFilter.GaussianBlur(12)))
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((lamp[0] - w * 0.068, top - h * 0.010, lamp[0] + w * 0.068, top), fill=(28, 30, 48))
    pen.rectangle(
        (lamp[0] - w * 0.040, lamp[1] - h * 0.028, lamp[0] + w * 0.040, top - h * 0.010), fill=(255, 232, 160)
    )
    for offset in (-0.040, -0.014, 0.012, 0.038):
        pen.rectangle(
            (lamp[0] + w * offset - 2, lamp[1] - h * 0.028, lamp[0] + w * offset + 2, top - h * 0.010),
            fill=(28, 30, 48),
        )
    pen.polygon(
        (
            (lamp[0] - w * 0.052, lamp[1] - h * 0.028),
            (lamp[0], lamp[1] - h * 0.068),
            (lamp[0] + w * 0.052, lamp[1] - h * 0.028),
        ),
        fill=(168, 52, 50),
    )
    glow(canvas, (lamp[0], lamp[1]), h * 0.20, (255, 236, 176), 0.75)
    return canvas.resize((width, height), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    HERE.mkdir(parents=True, exist_ok=True)
    harbour().save(HERE / "harbour.jpg", quality=88, optimize=True)
    lighthouse().save(HERE / "lighthouse.png", optimize=True)
