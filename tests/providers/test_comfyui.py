"""A ComfyUI server of one's own: workflows as forms, tasks that are found again, and files that become clips."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from bot.config import ConfigError, load
from bot.errors import Cause, ProviderBusy, ProviderError, ProviderRejected, ProviderUnsure
from bot.jobs.machine import Absent, Accepted, Broke, Ready, StillRendering
from bot.media.clip import probe
from bot.providers.base import ClipRequest
from bot.providers.comfyui import LAST_TASKS, ComfyUI, ComfyUISettings
from bot.providers.comfyui_workflow import PLACEHOLDERS
from tests.media.test_animation import animation
from tests.providers.conftest import picture
from tests.providers.contract import paid
from tests.servers.comfyui import ComfyUIServer

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "comfyui-workflow.json"
WAN: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
FIRST = ClipRequest(reference="r-1", variant="wan", prompt="waves", seconds=5, picture=picture())


def workflow(path: Path, *, without: tuple[str, ...] = (), **nodes: dict[str, Any] | None) -> Path:
    """The example with other nodes, by id; None leaves one out. `without`: placeholders become plain values."""
    made = {
        name: node for name, node in (WAN | {key[1:]: node for key, node in nodes.items()}).items() if node
    }
    text = json.dumps(made)
    for name in without:
        plain = "5" if name in ("frames", "width", "height", "seed", "fps") else '"plain"'
        text = text.replace(f'"{{{{{name}}}}}"', plain).replace(f"{{{{{name}}}}}", "plain")
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
async def server(clip: bytes) -> AsyncIterator[ComfyUIServer]:
    async with ComfyUIServer(clip=clip) as server:
        yield server


@pytest.fixture
async def make(server: ComfyUIServer, http: aiohttp.ClientSession) -> AsyncIterator[Any]:
    """A provider with one workflow, `wan`."""
    made: list[ComfyUI] = []
    pool = ThreadPoolExecutor(max_workers=1)

    def make(file: Path = EXAMPLE, *, longest_line: int = 10, **settings: Any) -> ComfyUI:
        all_settings = ComfyUISettings.model_validate(
            {
                "base_url": server.base_url,
                "longest_line": longest_line,
                "workflows": {"wan": {"file": file, **settings}},
            }
        )
        made.append(ComfyUI(http=http, settings=all_settings, pool=pool))
        return made[-1]

    yield make
    for provider in made:
        await provider.aclose()
    pool.shutdown()


async def ready(provider: ComfyUI, task: str) -> Ready:
    for _ in range(3):
        if isinstance(outcome := await provider.check(task), Ready):
            return outcome
    raise AssertionError(outcome)


# The form


async def test_what_the_placeholders_become(make: Any, server: ComfyUIServer) -> None:
    """Whole values keep their type; within a text they are text."""
    await paid(
        make(seconds=(5, 3), frames_per_second=24, width=1280, height=704),
        replace(FIRST, seconds=3, negative_prompt="people", picture=picture(300, 600)),
    )

    body = server.creates[0].body
    nodes, name = body["prompt"], body["prompt_id"]
    assert nodes["6"]["inputs"]["text"] == "waves"
    assert nodes["7"]["inputs"]["text"].startswith("people, overexposed")
    assert nodes["56"]["inputs"]["image"] == f"animatic/{name}.png"
    assert nodes["55"]["inputs"]["length"] == 3 * 24 + 1
    assert nodes["57"]["inputs"]["fps"] == 24
    assert nodes["58"]["inputs"]["filename_prefix"] == f"animatic/{name}"
    assert 0 <= nodes["3"]["inputs"]["seed"] < 2**32
    width, height = nodes["55"]["inputs"]["width"], nodes["55"]["inputs"]["height"]
    assert (width % 32, height % 32) == (0, 0)
    assert width / height == pytest.approx(0.5, rel=0.05)
    assert width * height == pytest.approx(1280 * 704, rel=0.05)
    assert server.pictures == {f"animatic/{name}.png": picture(300, 600).data}


async def test_what_a_member_writes_is_no_form(make: Any, server: ComfyUIServer) -> None:
    """Braces, quotes and line ends arrive as they were written."""
    words = 'a "{{seed}}" \\ {{picture}}\n{{nothing}}'

    await paid(make(), replace(FIRST, prompt=words))

    assert server.creates[0].body["prompt"]["6"]["inputs"]["text"] == words


async def test_every_clip_has_its_own_seed(make: Any, server: ComfyUIServer) -> None:
    """Else ComfyUI would give the clip that it made before."""
    provider = make()
    for reference in ("r-1", "r-2"):
        await paid(provider, replace(FIRST, reference=reference))

    first, second = (create.body["prompt"]["3"]["inputs"]["seed"] for create in server.creates)
    assert first != second


async def test_the_end_picture(make: Any, server: ComfyUIServer, tmp_path: Path) -> None:
    """A workflow that has a place for one gets the first again where none was given."""
    last = {"class_type": "LoadImage", "inputs": {"image": "{{end_picture}}"}}
    provider = make(workflow(tmp_path / "w.json", _99=last))
    assert provider.variants["wan"].end_picture

    await paid(provider, FIRST)
    await paid(provider, replace(FIRST, reference="r-2", end_picture=picture(64, 64, kind="JPEG")))

    without, given = (create.body["prompt"] for create in server.creates)
    assert without["99"]["inputs"]["image"] == without["56"]["inputs"]["image"]
    assert given["99"]["inputs"]["image"] == f"animatic/{server.creates[1].body['prompt_id']}-end.jpg"


async def test_a_clip_from_words(make: Any, server: ComfyUIServer, tmp_path: Path) -> None:
    """Without {{picture}} nothing is uploaded, and the shape is the member's choice."""
    latent = {
        "class_type": "EmptyHunyuanLatentVideo",
        "inputs": {"width": "{{width}}", "height": "{{height}}", "length": "{{frames}}", "batch_size": 1},
    }
    provider = make(workflow(tmp_path / "w.json", _55=latent, _56=None))
    can = provider.variants["wan"]
    assert (can.takes_picture, can.text_only, can.ratios) == (False, True, ("16:9", "9:16", "1:1"))

    sizes = []
    for number, ratio in enumerate(can.ratios):
        await paid(provider, replace(FIRST, reference=f"r-{number}", picture=None, ratio=ratio))
        inputs = server.creates[-1].body["prompt"]["55"]["inputs"]
        sizes.append((inputs["width"], inputs["height"]))

    assert sizes == [(832, 480), (480, 832), (640, 640)]
    assert server.pictures == {}


async def test_a_workflow_says_what_it_can_do(make: Any, tmp_path: Path) -> None:
    """Free, from a picture, as long as the owner says; an option without a placeholder is not offered."""
    can = make(seconds=(5, 3), minutes=10).variants["wan"]
    assert (can.free, can.seconds, can.takes_picture, can.text_only) == (True, (5, 3), True, False)
    assert can.negative_prompt > 0
    assert not can.end_picture
    assert (can.typical, can.deadline) == (timedelta(minutes=10), timedelta(minutes=60))

    plain = make(workflow(tmp_path / "w.json", without=("negative",))).variants["wan"]
    assert plain.negative_prompt == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read (No such file or directory); in ComfyUI choose Workflow, then Export (API)"),
        ("{", "is not JSON; in ComfyUI choose Workflow, then Export (API)"),
        ('{"3": {"inputs": {"seed": {{seed}}}}}', "is not JSON; "),
        ('{"nodes": [], "links": [], "version": 0.4}', "is a workflow as the editor saves it"),
        ("[]", "is not a workflow in API format"),
        ("{}", "is not a workflow in API format"),
        ('{"3": {"inputs": {}}}', "is not a workflow in API format"),
        (
            json.dumps(WAN).replace("{{prompt}}", "{{promt}}"),
            "has {{promt}}, which is no placeholder; there are",
        ),
        (json.dumps(WAN).replace("{{prompt}}", "waves"), "has no {{prompt}}"),
        (json.dumps(WAN).replace("{{picture}}", "{{end_picture}}"), "has {{end_picture}} but no {{picture}}"),
        (json.dumps({"6": WAN["6"]}), "has no node that saves a clip, such as SaveVideo"),
        ("x" * 1_100_000, "is larger than 1 MiB"),
    ],
)
def test_a_mistake_in_the_file_is_said_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, says: str
) -> None:
    """One sentence that names the file and the mend."""
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("wan.json").write_text(content, encoding="utf-8")
    Path("config.toml").write_text('[routes.comfyui.workflows.wan]\nfile = "wan.json"\n', encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        load()

    [mistake] = caught.value.mistakes
    assert mistake.startswith(f'routes.comfyui.workflows.wan: file = "wan.json" {says}')


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[routes.comfyui]\nslots = 1", "routes.comfyui.workflows is missing"),
        (
            f'[routes.comfyui.workflows.Wan]\nfile = "{EXAMPLE}"',
            "routes.comfyui.workflows.Wan: a workflow's name must be 1 to 32 of a-z",
        ),
        (
            f'[routes.comfyui]\nbase_url = "gpu:8188"\n[routes.comfyui.workflows.wan]\nfile = "{EXAMPLE}"',
            'routes.comfyui.base_url = "gpu:8188": must be an http or https address',
        ),
        (
            '[routes.comfyui.workflows.wan]\nfile = "fixed.json"\nseconds = [5, 10]',
            "routes.comfyui.workflows.wan: seconds offers a choice, but the file has neither {{frames}} nor",
        ),
    ],
)
def test_a_mistake_in_the_section_is_said_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    """As of every other section."""
    monkeypatch.chdir(tmp_path)
    workflow(tmp_path / "fixed.json", without=("frames",))
    Path("config.toml").write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        load()

    assert any(mistake.startswith(says) for mistake in caught.value.mistakes), caught.value.mistakes


def test_the_workflows_are_what_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the owner's names, before the sketch; a private address in plain http is what the route is for."""
    monkeypatch.chdir(tmp_path)
    text = f'[routes.comfyui]\nbase_url = "http://192.168.1.5:8188"\n[routes.comfyui.workflows.wan]\nfile = "{EXAMPLE}"'
    Path("config.toml").write_text(text, encoding="utf-8")

    assert list(load().models) == ["wan", "sketch"]


def test_the_page_names_every_placeholder() -> None:
    """What an owner reads is what the code knows."""
    page = (DOCS / "comfyui.md").read_text(encoding="utf-8")

    assert set(re.findall(r"\{\{(\w+)\}\}", page)) == set(PLACEHOLDERS)


# Queueing


async def test_a_long_line_is_not_made_longer(make: Any, server: ComfyUIServer) -> None:
    """Whoever sent what waits there: nothing is uploaded or queued, and it is tried again."""
    server.others_waiting = 3
    provider = make(longest_line=3)
    with pytest.raises(ProviderBusy) as caught:
        await paid(provider, FIRST)
    assert caught.value.retry_after
    assert (server.creates, server.pictures) == ([], {})

    server.others_waiting = 2

    assert await paid(provider, FIRST)


@pytest.mark.parametrize("fault", ["500", "503", "429", "html", "redirect"])
async def test_what_goes_wrong_before_it_is_queued_is_surely_not_taken(
    make: Any, server: ComfyUIServer, fault: str
) -> None:
    """Only the last step queues anything."""
    provider = make()
    ready = await provider.upload(FIRST)
    server.next_poll = fault
    with pytest.raises(ProviderError):
        await provider.upload(FIRST)
    server.next_poll = fault
    with pytest.raises((ProviderBusy, ProviderRejected)):
        await provider.submit(ready)

    assert server.creates == []


async def test_a_picture_that_was_not_uploaded_is_not_queued(make: Any, server: ComfyUIServer) -> None:
    """Its task was there when it was the picture's turn, and ComfyUI was restarted since: it is tried again."""
    provider = make()
    await paid(provider, FIRST)
    ready = await provider.upload(FIRST)
    server.restart()

    with pytest.raises(ProviderBusy):
        await provider.submit(ready)
    assert server.calls["POST /upload/image"] == server.made == 1

    await paid(provider, FIRST)

    assert server.made == 2


async def test_what_comfyui_finds_at_fault_is_for_the_log(
    make: Any, server: ComfyUIServer, tmp_path: Path
) -> None:
    """The owner reads there which node it is; the member only that it cannot be made."""
    file = workflow(tmp_path / "w.json", _3=WAN["3"] | {"class_type": "MySampler"})

    with pytest.raises(ProviderRejected) as caught:
        await paid(make(file), FIRST)

    assert caught.value.cause is Cause.BAD_INPUT
    assert "Node 'MySampler' not found" in caught.value.detail


async def test_tasks_are_named_as_comfyui_wants(make: Any, server: ComfyUIServer) -> None:
    """A UUID in its usual form, the same for the same reference, also from another process."""
    one, other = make(), make()
    task = (await paid(one, FIRST)).task

    assert str(uuid.UUID(task)) == task == server.creates[0].body["prompt_id"]
    assert await other.find("r-1") == Accepted(task)
    assert await other.find("r-2") == Absent()
    await ready(one, task)
    assert await other.find("r-1") == Accepted(task)


async def test_an_older_server_names_tasks_itself(make: Any, server: ComfyUIServer) -> None:
    """Ours is found by what we sent along, in the line and among the last of the history."""
    server.old = True
    provider = make()
    server.next_create = "reset_after"
    with pytest.raises(ProviderUnsure):
        await paid(provider, FIRST)
    [task] = server.tasks
    assert task != server.creates[0].body["prompt_id"]

    assert await provider.find("r-1") == Accepted(task)
    await ready(provider, task)
    assert await provider.find("r-1") == Accepted(task)
    for number in range(LAST_TASKS):
        await paid(provider, replace(FIRST, reference=f"other-{number}"))
    for each in server.tasks.values():
        each.polls = 9
    assert await provider.find("r-1") == Absent()


# Asking


async def test_a_line_of_large_workflows(make: Any, server: ComfyUIServer) -> None:
    """Those that come from the editor carry its whole drawing, and all of them are in every answer."""
    server.others_waiting, server.weight = 9, 400_000
    provider = make()

    task = (await paid(provider, FIRST)).task

    assert await provider.check(task) == StillRendering(queued=False)
    assert await provider.find("r-1") == Accepted(task)


async def test_a_restart_loses_what_was_in_the_line(make: Any, server: ComfyUIServer) -> None:
    """It will not come back: the job ends, and cost nothing."""
    provider = make()
    task = (await paid(provider, FIRST)).task
    assert isinstance(await provider.check(task), StillRendering)
    server.restart()

    assert await provider.check(task) == Broke(Cause.BROKEN, charged=False)


async def test_why_a_task_failed_is_for_the_log(make: Any, server: ComfyUIServer) -> None:
    """Out of memory, a node's bug: the member reads only that it did not work."""
    server.fail_with, server.polls_until_done = "Allocation on device failed", 0
    provider = make()
    task = (await paid(provider, FIRST)).task

    with capture_logs() as logs:
        assert await provider.check(task) == Broke(Cause.BROKEN, charged=False)

    assert logs[0]["reason"] == "KSampler: RuntimeError: Allocation on device failed"


async def heard(provider: ComfyUI, task: str, share: float) -> StillRendering:
    """The task as it is once its progress has arrived."""
    async with asyncio.timeout(20):
        while True:
            seen = await provider.check(task)
            assert isinstance(seen, StillRendering)
            if seen.progress == pytest.approx(share):
                return seen


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("progress", {"value": 5, "max": 20, "node": "3"}),
        (
            "progress_state",
            {
                "nodes": {
                    "3": {"value": 5, "max": 20, "state": "running"},
                    "37": {"value": 1, "max": 1, "state": "finished"},
                }
            },
        ),
    ],
)
async def test_progress_is_heard(make: Any, server: ComfyUIServer, kind: str, data: dict[str, Any]) -> None:
    """Of older and newer servers; another task's, and what is no message, says nothing."""
    server.polls_until_done = 10**9
    provider = make()
    task = (await paid(provider, FIRST)).task
    assert await provider.check(task) == StillRendering(queued=False)
    await server.connected.wait()

    await server.tell(task, kind, {**data, "prompt_id": "another"})
    await server.sockets[task].send_str("{")
    await server.sockets[task].send_str("[[]]")
    await server.tell(task, "progress", {"value": None, "max": "x", "prompt_id": task})
    await server.tell(task, kind, {**data, "prompt_id": task})

    await heard(provider, task, 0.25)


async def test_two_samplers_share_the_progress(make: Any, server: ComfyUIServer, tmp_path: Path) -> None:
    """The first is done at the half, not at the end."""
    server.polls_until_done = 10**9
    provider = make(workflow(tmp_path / "w.json", _30=WAN["3"]))
    task = (await paid(provider, FIRST)).task
    await provider.check(task)
    await server.connected.wait()

    await server.tell(task, "progress", {"value": 20, "max": 20, "node": "30", "prompt_id": task})

    await heard(provider, task, 0.5)


async def test_listening_ends_with_the_task(make: Any, server: ComfyUIServer) -> None:
    """One connection while it is being made, none afterwards; another process may go on."""
    provider = make()
    task = (await paid(provider, FIRST)).task
    await provider.check(task)
    await server.connected.wait()
    hearing = provider._listeners[task].hearing

    await ready(provider, task)
    await asyncio.wait([hearing], timeout=20)

    assert hearing.done()
    assert provider._listeners == {}
    assert provider._hushed == set()


async def test_without_a_websocket_there_is_no_progress(make: Any, server: ComfyUIServer) -> None:
    """A proxy that does not pass it on takes nothing but that."""
    server.has_socket = False
    provider = make()
    task = (await paid(provider, FIRST)).task

    assert await provider.check(task) == StillRendering(queued=False)
    assert isinstance(await ready(provider, task), Ready)


# Clips


def saved(*files: dict[str, Any], key: str = "images") -> dict[str, Any]:
    return {"58": {key: list(files)}}


@pytest.mark.parametrize(
    ("outputs", "name"),
    [
        (saved({"filename": "a_00001_.mp4", "subfolder": "video", "type": "output"}), "a_00001_.mp4"),
        (saved({"filename": "a.webm", "subfolder": "", "type": "output"}, key="gifs"), "a.webm"),
        (saved({"filename": "a.mp4", "subfolder": "", "type": "output"}, key="videos"), "a.mp4"),
        (
            saved(
                {"filename": "kept.mp4", "subfolder": "", "type": "output"},
                {"filename": "preview.mp4", "subfolder": "", "type": "temp"},
                {"filename": "last.png", "subfolder": "", "type": "output"},
            ),
            "kept.mp4",
        ),
        (
            saved(
                {"filename": "raw.mp4", "subfolder": "", "type": "output"},
                {"filename": "smooth.mp4", "subfolder": "", "type": "output"},
                {"filename": "small.webp", "subfolder": "", "type": "output"},
            ),
            "smooth.mp4",
        ),
    ],
)
async def test_which_file_is_the_clip(
    make: Any, server: ComfyUIServer, clip: bytes, tmp_path: Path, outputs: dict[str, Any], name: str
) -> None:
    """Nodes list their files under three keys; kept ones before previews, videos before the rest, the last."""
    server.outputs = outputs
    provider = make()
    task = (await paid(provider, FIRST)).task
    found = await ready(provider, task)
    assert f"filename={name}&" in found.clip_url

    await provider.fetch(found.clip_url, tmp_path / "clip.mp4")

    assert (tmp_path / "clip.mp4").read_bytes() == clip


async def test_the_named_file_is_the_clip(make: Any, server: ComfyUIServer, tmp_path: Path) -> None:
    """{{file}} marks one of several, wherever it stands."""
    other = {"class_type": "SaveVideo", "inputs": {"video": ["57", 0], "filename_prefix": "zzz"}}
    provider = make(workflow(tmp_path / "w.json", _99=other))
    task = (await paid(provider, FIRST)).task

    found = await ready(provider, task)

    assert f"filename={task}_00001_.mp4&subfolder=animatic&type=output" in found.clip_url


@pytest.mark.parametrize("ending", ["webp", "gif"])
async def test_animations_become_clips(make: Any, server: ComfyUIServer, tmp_path: Path, ending: str) -> None:
    """What cannot be played as a video is turned into one."""
    server.clip = animation(tmp_path / f"a.{ending}").read_bytes()
    server.ending = ending
    provider = make()
    task = (await paid(provider, FIRST)).task
    folder = tmp_path / "clips"
    folder.mkdir()

    await provider.fetch((await ready(provider, task)).clip_url, folder / "clip.mp4")

    assert [path.name for path in folder.iterdir()] == ["clip.mp4"]
    assert (await probe(folder / "clip.mp4")).plays_everywhere


async def test_a_broken_animation_is_said(make: Any, server: ComfyUIServer, tmp_path: Path) -> None:
    """Nothing of it is left behind."""
    server.clip, server.ending = b"RIFF....WEBP", "webp"
    provider = make()
    task = (await paid(provider, FIRST)).task

    with pytest.raises(ProviderRejected) as caught:
        await provider.fetch((await ready(provider, task)).clip_url, tmp_path / "clip.mp4")

    assert caught.value.cause is Cause.CLIP_UNUSABLE
    assert list(tmp_path.iterdir()) == []


async def test_a_deleted_file_is_gone(make: Any, server: ComfyUIServer, tmp_path: Path) -> None:
    """The owner cleared the folder."""
    provider = make()
    task = (await paid(provider, FIRST)).task
    found = await ready(provider, task)
    server.outputs = saved({"filename": "other.mp4", "subfolder": "", "type": "output"})

    with pytest.raises(ProviderRejected) as caught:
        await provider.fetch(found.clip_url, tmp_path / "clip.mp4")

    assert caught.value.cause is Cause.CLIP_GONE


@pytest.mark.parametrize(
    "link", ["http://127.0.0.1/x.mp4", "comfyui:http://10.0.0.1/", "comfyui:/free", "sketch:x"]
)
async def test_only_files_of_its_own_server_are_asked_for(
    make: Any, server: ComfyUIServer, tmp_path: Path, link: str
) -> None:
    """That a private address may be asked holds for nothing else."""
    with pytest.raises(ProviderRejected):
        await make().fetch(link, tmp_path / "clip.mp4")

    assert server.calls == {}


async def test_another_server_is_not_taken_for_comfyui(
    http: aiohttp.ClientSession, server: ComfyUIServer
) -> None:
    """`animatic doctor` tells a wrong port from a right one."""
    server.next_poll = "html"
    settings = ComfyUISettings.model_validate(
        {"base_url": f"{server.base_url}/nowhere", "workflows": {"wan": {"file": EXAMPLE}}}
    )

    with pytest.raises(ProviderError):
        await ComfyUI(http=http, settings=settings, pool=ThreadPoolExecutor(1)).probe()
