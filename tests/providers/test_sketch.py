"""The built-in route: from a prompt's words to a clip that moves that way."""

import asyncio
import io
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image, ImageChops, ImageOps, ImageStat

from bot.errors import Cause, ProviderBusy, ProviderRejected
from bot.jobs.machine import Absent, Accepted, Broke, Ready, StillRendering
from bot.media.clip import probe
from bot.providers.base import ClipRequest, Picture, Provider
from bot.providers.sketch import Sketch
from bot.providers.sketch_render import Order, Pose, Stopped, _View, read_camera, render

DATA = Path(__file__).parent.parent / "data"
STILL = Pose()


class Desk(Executor):
    """A pool that does the work when told to, in this very thread."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def work(self) -> None:
        while self.waiting:
            future, job = self.waiting.pop(0)
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(job())
                except Exception as error:  # noqa: BLE001 - as a real pool does
                    future.set_exception(error)


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def sketch(tmp_path: Path, desk: Desk) -> AsyncIterator[Sketch]:
    sketch = Sketch(folder=tmp_path / "sketch", pool=desk)
    yield sketch
    await sketch.aclose()


def picture(width: int = 96, height: int = 24, colour: tuple[int, int, int] = (200, 80, 40)) -> Picture:
    out = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(out, "PNG")
    return Picture(data=out.getvalue(), media_type="image/png", width=width, height=height)


def request(reference: str = "ref-1", prompt: str = "static", **changes: Any) -> ClipRequest:
    given = {"seconds": 5, "picture": picture()} | changes
    return ClipRequest(reference=reference, variant="sketch", prompt=prompt, **given)


def draw(tmp_path: Path, prompt: str, **changes: Any) -> Path:
    given = {"seconds": 1, "ratio": None, "picture": DATA / "harbour.jpg", "end_picture": None} | changes
    order = Order(
        prompt=prompt,
        clip=tmp_path / "clip.mp4",
        progress=tmp_path / "clip.progress",
        stop=tmp_path / "clip.stop",
        **given,
    )
    render(order)
    return order.clip


def frames(path: Path) -> list[Image.Image]:
    with av.open(path) as clip:
        return [frame.to_image() for frame in clip.decode(video=0)]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures, 0 to 255."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other.resize(one.size))).mean) / 3


def middle(image: Image.Image, share: float) -> Image.Image:
    """The middle of a picture, at the size of the whole."""
    x, y = image.width * (1 - share) / 2, image.height * (1 - share) / 2
    return image.resize(image.size, box=(x, y, image.width - x, image.height - y))


# The prompt's words


@pytest.mark.parametrize(
    ("prompt", "moves"),
    [
        ("camera pull out", {"nearer": -1}),
        ("the camera slowly pulls back from the harbour", {"nearer": -1}),
        ("Zoom out slowly", {"nearer": -1}),
        ("zoom in on the boat", {"nearer": 1}),
        ("zooming", {"nearer": 1}),
        ("a slow push in", {"nearer": 1}),
        ("push-in on her face", {"nearer": 1}),
        ("dolly out", {"nearer": -1}),
        ("pan left", {"yaw": -1}),
        ("panning slowly to the right", {"yaw": 1}),
        ("tilt up", {"pitch": 1}),
        ("tilts downwards", {"pitch": -1}),
        ("truck left", {"x": -1}),
        ("tracking right", {"x": 1}),
        ("pedestal up", {"y": -1}),
        ("pedestal down", {"y": 1}),
        ("roll clockwise", {"roll": 1}),
        ("rotate counterclockwise", {"roll": -1}),
        ("orbit left around the tower", {"swing": -1}),
        ("camera circles around her", {"swing": 1}),
        ("pan left while zooming out", {"yaw": -1, "nearer": -1}),
    ],
)
def test_reads_the_move_from_the_prompt(prompt: str, moves: dict[str, int]) -> None:
    """Each wording moves the camera along its own axes, in its own direction, and along no other."""
    camera = read_camera(prompt)

    for axis in ("x", "y", "nearer", "yaw", "pitch", "roll", "swing"):
        moved = getattr(camera.end, axis) - getattr(camera.start, axis)
        assert (moved > 0) - (moved < 0) == moves.get(axis, 0), axis


def test_a_crane_shot_rises() -> None:
    """A crane lifts the camera and looks down as it goes."""
    camera = read_camera("crane up over the roofs")

    assert camera.end.y < camera.start.y
    assert camera.end.pitch < camera.start.pitch


@pytest.mark.parametrize(
    "prompt", ["", "a frying pan on a stove", "waves roll over the sand", "a crowded train"]
)
def test_without_a_move_it_pushes_in_gently(prompt: str) -> None:
    """Words that only sound like a move are none; the picture still comes alive."""
    camera = read_camera(prompt)

    assert 0 < camera.end.nearer - camera.start.nearer < 0.3


@pytest.mark.parametrize("prompt", ["static shot", "no camera movement", "locked-off, the boats rock"])
def test_stands_still_when_asked(prompt: str) -> None:
    """Static means static."""
    camera = read_camera(prompt)

    assert camera.at(0) == camera.at(0.5) == camera.at(1) == STILL


def test_a_hand_trembles() -> None:
    """Handheld shakes on top of any other move."""
    assert read_camera("handheld").tremor
    assert read_camera("shaky camera, static").at(0.3) != STILL


def test_slow_moves_less_and_fast_more() -> None:
    """The clip's length is given, so pace is distance."""
    slow, usual, fast = (read_camera(f"{pace} zoom in").end.nearer for pace in ("slow", "", "fast"))

    assert slow < usual < fast


def test_eases_in_and_out() -> None:
    """The camera starts and stops softly: the first and last steps are the smallest."""
    camera = read_camera("zoom in")
    nearer = [camera.at(n / 20).nearer for n in range(21)]
    steps = [b - a for a, b in itertools.pairwise(nearer)]

    assert max(steps) == pytest.approx(max(steps[9:11]))
    assert steps[0] < max(steps) / 4
    assert steps[-1] < max(steps) / 4


# The drawing


async def test_two_requests_at_the_same_moment_do_not_spoil_each_other(
    sketch: Sketch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one is writing gets its name while the other looks for old files: between seeing it and asking its age."""
    scan = os.scandir
    (tmp_path / "sketch").mkdir()
    writing = tmp_path / "sketch" / "ref-2.picture.1.part"
    writing.touch()

    @contextmanager
    def seen_too_early(folder: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scan(folder) as entries:
            seen = list(entries)
        writing.unlink()
        yield iter(seen)

    monkeypatch.setattr(os, "scandir", seen_too_early)

    assert isinstance(await sketch.submit(request()), Accepted)
    assert not writing.exists()


@pytest.fixture(scope="module")
def pull_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip of a photograph, as long and as large as members get it."""
    return draw(tmp_path_factory.mktemp("sketch"), "camera pull out", seconds=5)


async def test_draws_a_clip_that_plays_everywhere(pull_out: Path) -> None:
    """5 s, 24 frames a second, H.264, longest side 720."""
    facts = await probe(pull_out)

    assert facts.plays_everywhere
    assert (facts.width, facts.height) == (720, 480)
    assert facts.frames_per_second == pytest.approx(24)
    assert facts.seconds == pytest.approx(5, abs=0.05)


def test_pulls_out_to_the_whole_picture(pull_out: Path) -> None:
    """The clip begins on the middle and ends with all of the picture in sight."""
    shown = frames(pull_out)
    whole = Image.open(DATA / "harbour.jpg").resize(shown[0].size)

    close_up = middle(whole, 0.67)
    assert difference(shown[-1], whole) < 12 < difference(shown[-1], close_up)
    assert difference(shown[0], close_up) < 12 < difference(shown[0], whole)


def test_moves_smoothly(pull_out: Path) -> None:
    """No frame jumps: steps grow and shrink evenly, without the jitter of whole-pixel moves."""
    shown = frames(pull_out)
    steps = [difference(a, b) for a, b in itertools.pairwise(shown)]

    assert max(steps) < 4
    assert difference(shown[0], shown[-1]) > 4 * max(steps)


@pytest.mark.parametrize("margin", [0, 80])
@pytest.mark.parametrize("prompt", ["zoom out", "truck left", "pedestal up, push in", "static"])
def test_a_camera_that_does_not_turn_sees_what_any_camera_sees(prompt: str, margin: int) -> None:
    """Its frames are drawn in another way, the faster one. A camera that turns by nearly nothing shows the same."""
    camera = read_camera(prompt)
    hardly = replace(camera, start=camera.start + Pose(roll=1e-9), end=camera.end + Pose(roll=1e-9))
    whole = Image.open(DATA / "harbour.jpg").convert("RGB")
    straight, turned = (_View.inside(one, whole.width / whole.height) for one in (camera, hardly))
    image = ImageOps.expand(whole, margin)

    for moment in (0, 0.3, 1):
        one, other = (view.shoot(image, (720, 480), moment, margin=margin) for view in (straight, turned))
        assert difference(one, other) < 1
        assert difference(one, ImageChops.offset(other, 1, 1)) > 2 * difference(one, other)


@pytest.mark.parametrize(
    "prompt",
    ["orbit left", "fast pan right, handheld", "roll clockwise", "tilt up", "crane down", "truck left"],
)
def test_never_shows_what_is_beyond_the_picture(tmp_path: Path, prompt: str) -> None:
    """A white picture stays white up to its corners, wherever the camera goes."""
    path = tmp_path / "white.png"
    Image.new("RGB", (320, 180), "white").save(path)

    for image in frames(draw(tmp_path, prompt, picture=path))[::3]:
        darkest, _ = image.convert("L").getextrema()
        assert darkest > 190


def test_dissolves_into_the_end_picture(tmp_path: Path) -> None:
    """The first half shows the first picture alone, the end the other, however different its shape."""
    red, blue = tmp_path / "red.png", tmp_path / "blue.png"
    Image.new("RGB", (160, 120), (210, 30, 30)).save(red)
    Image.new("RGB", (90, 160), (30, 30, 210)).save(blue)

    shown = frames(draw(tmp_path, "static", picture=red, end_picture=blue))
    first, mixed, last = (
        image.getpixel((image.width // 2, image.height // 2)) for image in (shown[11], shown[16], shown[-1])
    )

    assert first[0] > 180 > 60 > first[2]
    assert 60 < mixed[0] < 180
    assert 60 < mixed[2] < 180
    assert last[2] > 180 > 60 > last[0]


@pytest.mark.parametrize(
    ("ratio", "size"), [("16:9", (720, 404)), ("9:16", (404, 720)), ("1:1", (720, 720)), (None, (720, 404))]
)
async def test_draws_a_title_card_without_a_picture(
    tmp_path: Path, ratio: str | None, size: tuple[int, int]
) -> None:
    """The prompt in light letters in the middle of a dark, moving ground, in the chosen shape."""
    clip = draw(tmp_path, "A lighthouse in a storm", picture=None, ratio=ratio)

    facts, shown = await probe(clip), frames(clip)
    assert (facts.width, facts.height) == size
    assert middle(shown[0], 0.7).convert("L").getextrema()[1] > 220
    assert ImageStat.Stat(shown[0].convert("L")).mean[0] < 150
    assert difference(shown[0], shown[-1]) > 1


@pytest.mark.parametrize("prompt", ["word " * 500, "w" * 2500, "🌊🔥", "灯台と嵐", " "])
def test_sets_any_prompt_in_type(tmp_path: Path, prompt: str) -> None:
    """Too long, unbroken, or without a letter that the font has: a card comes out all the same."""
    assert len(frames(draw(tmp_path, prompt, picture=None, ratio="9:16"))) == 24


@pytest.mark.parametrize("size", [(16, 16), (2048, 205), (205, 2048), (101, 67)])
async def test_draws_pictures_of_any_shape(tmp_path: Path, size: tuple[int, int]) -> None:
    """The smallest, the longest and the odd come out with even sides of at most 720."""
    path = tmp_path / "picture.png"
    Image.new("RGB", size, "teal").save(path)

    facts = await probe(draw(tmp_path, "zoom in", picture=path))

    assert facts.width % 2 == facts.height % 2 == 0
    assert max(facts.width, facts.height) <= 720


def test_stops_when_told(tmp_path: Path) -> None:
    """A stop file ends the drawing at its next frames, without a clip."""
    (tmp_path / "clip.stop").touch()

    with pytest.raises(Stopped):
        draw(tmp_path, "zoom in")

    assert not list(tmp_path.glob("clip.mp4*"))


# The route


async def test_a_real_process_draws_the_clip(tmp_path: Path, processes: Executor) -> None:
    """From request to file, as the bot does it."""
    sketch: Provider = Sketch(folder=tmp_path / "sketch", pool=processes)

    accepted = await sketch.submit(request(prompt="camera pull out"))
    outcome = await sketch.check(accepted.task)
    for _ in range(1200):
        if not isinstance(outcome, StillRendering):
            break
        await asyncio.sleep(0.05)
        outcome = await sketch.check(accepted.task)

    assert outcome == Ready(clip_url="sketch:ref-1")
    await sketch.fetch("sketch:ref-1", tmp_path / "clip.mp4")
    assert (await probe(tmp_path / "clip.mp4")).plays_everywhere
    assert names_in(tmp_path) == ["clip.mp4", "sketch"]


async def test_a_waiting_request_is_still_rendering(sketch: Sketch) -> None:
    """Accepted under our own reference; nothing to tell of progress yet."""
    accepted = await sketch.submit(request())

    assert accepted == Accepted("ref-1")
    assert await sketch.check("ref-1") == StillRendering(progress=None, queued=True)


async def test_tells_how_far_it_is(sketch: Sketch, desk: Desk, tmp_path: Path) -> None:
    """Progress comes from the drawing process."""
    await sketch.submit(request())
    drawing, _ = desk.waiting[0]
    drawing.set_running_or_notify_cancel()
    (tmp_path / "sketch" / "ref-1.progress").write_text("0.250")

    assert await sketch.check("ref-1") == StillRendering(progress=0.25, queued=False)
    drawing.set_result(None)


async def test_begins_again_after_a_restart(sketch: Sketch, desk: Desk, tmp_path: Path) -> None:
    """A request that nobody draws, because the process ended, is drawn by the next one."""
    await sketch.submit(request())
    next_desk = Desk()
    after = Sketch(folder=tmp_path / "sketch", pool=next_desk)

    before_work = await after.check("ref-1")
    next_desk.work()

    assert isinstance(before_work, StillRendering)
    assert await after.check("ref-1") == Ready(clip_url="sketch:ref-1")


async def test_finds_what_was_kept_before_a_death(sketch: Sketch, desk: Desk, tmp_path: Path) -> None:
    """Before it is drawn, and after; what was not kept is absent, and drawn when it is asked for again."""
    assert await sketch.find("ref-1") == Absent()

    await sketch.submit(request())
    after = Sketch(folder=tmp_path / "sketch", pool=(desk_after := Desk()))
    found = await after.find("ref-1")

    assert found == Accepted("ref-1")
    await after.check("ref-1")
    desk_after.work()
    assert await after.check("ref-1") == Ready("sketch:ref-1")
    assert await after.find("ref-1") == found
    await after.aclose()


@pytest.mark.parametrize("reference", ["", "../ref-1", "a" * 65])
async def test_finds_nothing_under_what_is_no_file_name(
    sketch: Sketch, tmp_path: Path, reference: str
) -> None:
    """Whatever lies there."""
    (folder := tmp_path / "sketch").mkdir()
    (folder / f"{reference}.json").write_text("{}")

    assert await sketch.find(reference) == Absent()


async def test_asking_twice_draws_once(sketch: Sketch, desk: Desk) -> None:
    """The same reference is the same clip, while it is drawn and afterwards."""
    await sketch.submit(request())
    await sketch.submit(request())
    waiting = len(desk.waiting)
    desk.work()
    await sketch.submit(request())

    assert waiting == 1
    assert desk.waiting == []
    assert isinstance(await sketch.check("ref-1"), Ready)


@pytest.mark.parametrize("task", ["never-seen", "../ref-1", "", "a/b", "x" * 200])
async def test_an_unknown_task_is_gone_and_free(sketch: Sketch, task: str) -> None:
    """Also a task that is no file name: it reaches no file."""
    assert await sketch.check(task) == Broke(Cause.CLIP_GONE, charged=False)


async def test_refuses_a_reference_that_is_no_file_name(sketch: Sketch, tmp_path: Path) -> None:
    """Nothing is written for it."""
    with pytest.raises(ProviderRejected) as caught:
        await sketch.submit(request(reference="../../etc/cron"))

    assert caught.value.cause == Cause.BAD_INPUT
    assert names_in(tmp_path) == []


async def test_a_failed_drawing_is_broken_and_free(sketch: Sketch, desk: Desk) -> None:
    """A picture that cannot be drawn ends the job; nobody pays."""
    rubbish = Picture(data=b"no picture", media_type="image/png", width=1, height=1)
    await sketch.submit(request(picture=rubbish))
    desk.work()

    assert await sketch.check("ref-1") == Broke(Cause.BROKEN, charged=False)


async def test_a_closed_pool_is_busy_at_submit(sketch: Sketch, desk: Desk) -> None:
    """Shutting down: surely not accepted, and worth asking the next process."""
    desk.closed = True

    with pytest.raises(ProviderBusy):
        await sketch.submit(request())


async def test_a_folder_that_cannot_be_written_is_rejected(tmp_path: Path, desk: Desk) -> None:
    """A full or missing disk is ours to mend; the job is not taken."""
    (tmp_path / "file").touch()
    sketch = Sketch(folder=tmp_path / "file" / "sketch", pool=desk)

    with pytest.raises(ProviderRejected) as caught:
        await sketch.submit(request())

    assert caught.value.cause == Cause.BROKEN


@pytest.mark.parametrize(
    "clip_url", ["sketch:never-seen", "sketch:../secret", "https://example.invalid/a.mp4"]
)
async def test_fetching_what_is_not_there_says_gone(sketch: Sketch, tmp_path: Path, clip_url: str) -> None:
    """No file is left, not even a partial one."""
    with pytest.raises(ProviderRejected) as caught:
        await sketch.fetch(clip_url, tmp_path / "clip.mp4")

    assert caught.value.cause == Cause.CLIP_GONE
    assert names_in(tmp_path) == []


async def test_closing_calls_off_what_waits(sketch: Sketch, desk: Desk) -> None:
    """What has not begun never does; its request stays for the next process."""
    await sketch.submit(request())

    await sketch.aclose()

    assert desk.waiting[0][0].cancelled()


async def test_closing_stops_what_is_drawn(tmp_path: Path, processes: Executor) -> None:
    """A drawing under way ends without its clip, and the next process begins it again."""
    sketch = Sketch(folder=tmp_path / "sketch", pool=processes)
    await sketch.submit(request(seconds=10))
    drawing = sketch._running["ref-1"]

    await sketch.aclose()
    await asyncio.to_thread(wait, [drawing], 30)

    assert drawing.cancelled() or isinstance(drawing.exception(), Stopped)
    assert not (tmp_path / "sketch" / "ref-1.mp4").exists()


async def test_sweeps_clips_that_are_a_day_old(sketch: Sketch, tmp_path: Path) -> None:
    """Discord keeps the clips; the folder does not grow for ever. Unfinished requests may be late."""
    folder = tmp_path / "sketch"
    folder.mkdir()
    for name in ("old.mp4", "old.json", "late.json", "new.mp4", "abandoned.json"):
        (folder / name).touch()
    now = time.time()
    for name, days in (("old.mp4", 1.1), ("old.json", 1.1), ("late.json", 1.1), ("abandoned.json", 4)):
        os.utime(folder / name, (now - days * 86_400,) * 2)

    await sketch.submit(request())

    left = {path.name for path in folder.iterdir()}
    assert left >= {"late.json", "new.mp4", "ref-1.json"}
    assert not left & {"old.mp4", "abandoned.json"}


def test_says_what_it_can(sketch: Sketch) -> None:
    """Free, for everyone, with every option that a newcomer may try."""
    can = sketch.variants["sketch"]

    assert can.free
    assert can.text_only
    assert can.end_picture
    assert can.seconds == (5, 10)
    assert can.ratios == ("16:9", "9:16", "1:1")
