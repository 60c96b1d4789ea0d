"""A ComfyUI server on loopback: validates workflows as ComfyUI does, and answers in its shapes.

It knows ComfyUI's server.py and execution.py, and nothing of our code. How it misbehaves: see `loopback.py`, and
POLL_FAULTS; `next_poll` is for the next question about the line. A task is running for `polls_until_done` such
questions, and then in the history, or failed if `fail_with` is set. `old` is a server that names tasks itself.
"""

import asyncio
import io
import uuid
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from PIL import Image, UnidentifiedImageError

from tests.servers.loopback import LoopbackServer

POLL_FAULTS = {
    "waits": "others are before it in the line",
    "unknown_word": "a status that is not documented",
    "no_link": "success, but nothing was saved",
    "cancelled": "somebody stopped it",
}

# The inputs of some nodes: True for a link, else the type of the value.
NODES: dict[str, dict[str, Any]] = {
    "UNETLoader": {"unet_name": str, "weight_dtype": str},
    "CLIPLoader": {"clip_name": str, "type": str},
    "VAELoader": {"vae_name": str},
    "ModelSamplingSD3": {"model": True, "shift": float},
    "LoadImage": {"image": str},
    "CLIPTextEncode": {"clip": True, "text": str},
    "Wan22ImageToVideoLatent": {"vae": True, "width": int, "height": int, "length": int, "batch_size": int},
    "EmptyHunyuanLatentVideo": {"width": int, "height": int, "length": int, "batch_size": int},
    "KSampler": {
        "model": True,
        "positive": True,
        "negative": True,
        "latent_image": True,
        "seed": int,
        "steps": int,
        "cfg": float,
    },
    "VAEDecode": {"samples": True, "vae": True},
    "CreateVideo": {"images": True, "fps": float},
    "SaveVideo": {"video": True, "filename_prefix": str},
    "SaveAnimatedWEBP": {"images": True, "filename_prefix": str, "fps": float},
    "VHS_VideoCombine": {"images": True, "frame_rate": float, "filename_prefix": str},
    "PreviewImage": {"images": True},
}
# Output nodes: under which key they list what they saved, how it ends, and whether it is only a preview.
SAVERS = {
    "SaveVideo": ("images", "mp4", "output"),
    "SaveAnimatedWEBP": ("images", "webp", "output"),
    "VHS_VideoCombine": ("gifs", "mp4", "output"),
    "PreviewImage": ("images", "png", "temp"),
}
TYPES = {"mp4": "video/mp4", "webp": "image/webp", "gif": "image/gif", "webm": "video/webm"}


@dataclass(kw_only=True)
class Task:
    id: str
    number: int
    nodes: dict[str, Any]
    extra: dict[str, Any]
    outputs: list[str]
    polls: int = 0

    def item(self) -> list[Any]:
        return [self.number, self.id, self.nodes, self.extra, self.outputs]


class Invalid(Exception):
    """What ComfyUI's validation finds at fault: node, type and details."""

    def __init__(self, node: str, kind: str, details: str) -> None:
        self.node, self.kind, self.details = node, kind, details
        super().__init__(details)


class ComfyUIServer(LoopbackServer):
    def __init__(self, *, clip: bytes, polls_until_done: int = 1) -> None:
        super().__init__(clip=clip)
        self.polls_until_done = polls_until_done
        self.tasks: dict[str, Task] = {}
        self.made = 0  # how many were queued, also under one id
        self.pictures: dict[str, bytes] = {}  # by subfolder/name
        self.others_waiting = 0
        self.weight = 0  # characters that the editor adds to each of theirs
        self.old = False
        self.has_socket = True
        self.fail_with: str | None = None  # tasks fail, with this exception_message
        self.outputs: dict[str, Any] | None = None  # what the history tells, instead of what the nodes save
        self.ending: str | None = None  # of the files that are saved
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.connected = asyncio.Event()  # somebody listens
        self._history_fault: str | None = None

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/prompt", self._prompt)
        app.router.add_get("/queue", self._queue)
        app.router.add_get("/history", self._history)
        app.router.add_get("/history/{id}", self._history)
        app.router.add_get("/view", self._view)
        app.router.add_post("/upload/image", self._upload)
        app.router.add_get("/system_stats", self._stats)
        app.router.add_get("/ws", self._socket)

    async def __aexit__(self, *why: Any) -> None:
        for socket in list(self.sockets.values()):
            await socket.close()
        await super().__aexit__(*why)

    def error(self, status: int, text: str) -> web.Response:
        return web.Response(status=status, text=f"{status}: {text}")

    def restart(self) -> None:
        """Line and history are only in memory."""
        self.tasks.clear()

    async def tell(self, task: str, kind: str, data: dict[str, Any]) -> None:
        """Send a message to whoever listens for the task's client."""
        await self.sockets[self.tasks[task].extra["client_id"]].send_json({"type": kind, "data": data})

    # Queueing

    async def _prompt(self, request: web.Request) -> web.StreamResponse:
        fault = await self.arrived(request)
        if bad := await self.misbehave(request, fault):
            return bad
        body = self.creates[-1].body
        name = body.get("prompt_id")
        if self.old or name is None:
            name = str(uuid.uuid4())
        elif not isinstance(name, str) or str(uuid.UUID(name)) != name:
            return self._invalid("invalid_prompt_id", "prompt_id must be a valid UUID", {})
        try:
            outputs = self._validate(body["prompt"])
        except Invalid as invalid:
            errors = {"errors": [{"type": invalid.kind, "details": invalid.details}], "class_type": "?"}
            return self._invalid(
                "prompt_outputs_failed_validation",
                "Prompt outputs failed validation",
                {invalid.node: errors} if invalid.node else {},
            )
        self.made += 1
        extra = {**body.get("extra_data", {}), "client_id": body.get("client_id")}
        self.tasks[name] = Task(id=name, number=self.made, nodes=body["prompt"], extra=extra, outputs=outputs)
        return await self.answer(request, fault, {"prompt_id": name, "number": self.made, "node_errors": {}})

    def _invalid(self, kind: str, message: str, nodes: dict[str, Any]) -> web.Response:
        error = {"type": kind, "message": message, "details": "", "extra_info": {}}
        return web.json_response({"error": error, "node_errors": nodes}, status=400)

    def _validate(self, nodes: Any) -> list[str]:
        """The output nodes. Raises Invalid."""
        if not isinstance(nodes, dict):
            raise Invalid("", "no_prompt", "No prompt provided")
        for name, node in nodes.items():
            known = NODES.get(node.get("class_type"))
            if known is None:
                raise Invalid(name, "missing_node_type", f"Node '{node.get('class_type')}' not found")
            for key, kind in known.items():
                self._validate_input(nodes, name, key, kind)
        outputs = [name for name, node in nodes.items() if node["class_type"] in SAVERS]
        if not outputs:
            raise Invalid("", "prompt_no_outputs", "Prompt has no outputs")
        return outputs

    def _validate_input(self, nodes: dict[str, Any], name: str, key: str, kind: Any) -> None:
        value = nodes[name]["inputs"].get(key)
        if value is None:
            raise Invalid(name, "required_input_missing", key)
        if kind is True:
            if not isinstance(value, list) or len(value) != 2 or value[0] not in nodes:
                raise Invalid(name, "bad_linked_input", key)
        elif not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
            raise Invalid(name, "invalid_input_type", f"{key}: {value!r}")
        elif isinstance(value, str) and "{{" in value and key != "text":
            raise Invalid(name, "value_not_in_list", f"{key}: {value!r}")
        elif key in ("width", "height") and value % 16:
            raise Invalid(name, "value_not_in_list", f"{key}: {value}")
        elif key == "image":
            self._validate_picture(name, value)

    def _validate_picture(self, node: str, name: str) -> None:
        try:
            with Image.open(io.BytesIO(self.pictures[name])) as image:
                image.load()
        except (KeyError, UnidentifiedImageError, OSError):
            raise Invalid(node, "custom_validation_failed", f"image - Invalid image file: {name}") from None

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        self.calls["POST /upload/image"] += 1
        if bad := await self.upload_arrived(request):
            return bad
        form = await request.post()
        image, folder = form["image"], str(form.get("subfolder", ""))
        assert isinstance(image, web.FileField)
        if form.get("type") != "input" or ".." in folder + image.filename:
            return web.Response(status=400)
        self.pictures[f"{folder}/{image.filename}" if folder else image.filename] = image.file.read()
        return web.json_response({"name": image.filename, "subfolder": folder, "type": "input"})

    # Asking

    async def _queue(self, request: web.Request) -> web.StreamResponse:
        self.calls["GET /queue"] += 1
        fault, self.next_poll = self.next_poll, None
        if fault == "never":
            return await self.silence()
        if bad := await self.misbehave(request, fault):
            return bad
        running, waiting = [], []
        for task in self.tasks.values():
            task.polls += 1
            if fault == "waits":
                task.polls -= 1
                waiting.append(task.item())
            elif fault in ("unknown_word", "no_link", "cancelled"):
                self._history_fault = fault
            elif task.polls <= self.polls_until_done:
                running.append(task.item())
        extra = {"extra_pnginfo": "x" * self.weight}
        others = [[number, str(uuid.uuid4()), {}, extra, []] for number in range(self.others_waiting)]
        return web.json_response({"queue_running": running, "queue_pending": waiting + others})

    async def _history(self, request: web.Request) -> web.StreamResponse:
        fault, self._history_fault = self._history_fault, None
        asked = request.match_info.get("id")
        most = int(request.query.get("max_items", 10_000))
        entries = {
            task.id: self._entry(task, fault)
            for task in list(self.tasks.values())[-most:]
            if asked in (None, task.id) and (task.polls > self.polls_until_done or fault)
        }
        return web.json_response(entries)

    def _entry(self, task: Task, fault: str | None) -> dict[str, Any]:
        messages: list[Any] = [["execution_start", {"prompt_id": task.id, "timestamp": 1}]]
        word, outputs = "success", self.outputs if self.outputs is not None else self._saved(task)
        if fault == "cancelled":
            word = "error"
            messages.append(["execution_interrupted", {"prompt_id": task.id, "node_type": "KSampler"}])
        elif self.fail_with is not None:
            word = "error"
            reason = {"exception_message": self.fail_with, "exception_type": "RuntimeError"}
            messages.append(["execution_error", {"node_id": "3", "node_type": "KSampler", **reason}])
        elif fault == "unknown_word":
            word = "reticulating"
        else:
            messages.append(["execution_success", {"prompt_id": task.id}])
        good = word == "success" and fault != "no_link"
        return {
            "prompt": task.item(),
            "outputs": outputs if good else {},
            "status": {"status_str": word, "completed": word == "success", "messages": messages},
            "meta": {},
        }

    def _saved(self, task: Task) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in task.outputs:
            key, ending, kind = SAVERS[task.nodes[name]["class_type"]]
            prefix = str(task.nodes[name]["inputs"].get("filename_prefix", "ComfyUI_temp"))
            folder, _, start = prefix.rpartition("/")
            file = f"{start}_00001_.{self.ending or ending}"
            found[name] = {key: [{"filename": file, "subfolder": folder, "type": kind}], "animated": [True]}
        return found

    async def _view(self, request: web.Request) -> web.StreamResponse:
        self.calls["GET /view"] += 1
        name, folder = request.query["filename"], request.query["subfolder"]
        known = [
            (each["filename"], each["subfolder"])
            for task in self.tasks.values()
            for node in (self.outputs or self._saved(task)).values()
            for files in node.values()
            for each in files
            if isinstance(each, dict)
        ]
        gone = None if (name, folder) in known else web.Response(status=404)
        return await self.serve_clip(request, self.clip, TYPES[name.rpartition(".")[2]], gone=gone)

    async def _stats(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"system": {"os": "linux", "comfyui_version": "0.9.1"}, "devices": []})

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if not self.has_socket:
            return web.Response(status=404)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client = request.query["clientId"]
        self.sockets[client] = socket
        await socket.send_json({"type": "status", "data": {"status": {}, "sid": client}})
        await socket.send_bytes(b"\0\0\0\1\0\0\0\2preview")
        self.connected.set()
        try:
            async for _ in socket:
                pass
        finally:
            self.sockets.pop(client, None)
        return socket
