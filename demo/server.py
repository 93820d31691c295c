"""A real ComfyUI server on loopback with this pack installed, and a client for it."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import aiohttp
import torch

ROOT = Path(__file__).resolve().parents[1]
# The folder people install into: the hyphen is part of the test.
PACK = "ComfyUI-Loco"
CLIENT = "demo"
# The server's last message of a workflow.
ENDED = ("execution_success", "execution_error", "execution_interrupted")
NOT_INSTALLED = shutil.ignore_patterns(
    ".git", ".venv", ".comfyui", "__pycache__", ".*_cache", "output", "tests", "*.egg-info"
)


class Server:
    """`with Server(comfyui, folder) as server: server.run(workflow)`; everything it writes stays in `folder`."""

    def __init__(self, comfyui: Path, folder: Path) -> None:
        self._comfyui, self.folder = comfyui, folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self._process: subprocess.Popen | None = None

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def __enter__(self) -> Server:
        for name in ("models", "input", "output", "temp", "user", "custom_nodes"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT, self.folder / "custom_nodes" / PACK, ignore=NOT_INSTALLED, dirs_exist_ok=True)
        command = [sys.executable, str(self._comfyui / "main.py"), "--listen", "127.0.0.1"]
        command += ["--port", self.address.rsplit(":", 1)[1], "--base-directory", str(self.folder)]
        command += ["--database-url", "sqlite:///:memory:", "--use-pytorch-cross-attention"]
        if not torch.cuda.is_available():
            command.append("--cpu")
        with self.log.open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder)
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.get("/system_stats")
                return self
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.25)
        self.__exit__(None, None, None)
        raise RuntimeError(f"the ComfyUI server did not start; the end of its log:\n{self._log_tail()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """Ends it at once, as a crash does."""
        self._process.kill()
        self._process.wait()

    def _log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])

    def content(self, path: str) -> bytes:
        with urllib.request.urlopen(self.address + path, timeout=30) as answer:
            return answer.read()

    def get(self, path: str) -> dict:
        return json.loads(self.content(path))

    def post(self, path: str, content: dict) -> dict:
        body = json.dumps(content).encode()
        request = urllib.request.Request(self.address + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.read().decode(errors='replace')}") from error
        return json.loads(text) if text else {}

    def queue(self, workflow: dict) -> str:
        """Queues an API workflow; returns its id. The server would run the valid part of a graph: here all must be."""
        answer = self.post("/prompt", {"prompt": workflow, "client_id": CLIENT})
        if answer.get("node_errors"):
            raise RuntimeError(f"the workflow is not valid: {answer['node_errors']}")
        return answer["prompt_id"]

    def wait(self, prompt_id: str) -> dict:
        """Waits until a queued workflow has ended; returns its history entry, whatever its status."""
        while True:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                return entry
            if self._process.poll() is not None:
                raise RuntimeError(f"the ComfyUI server ended; the end of its log:\n{self._log_tail()}")
            time.sleep(0.1)

    def run(self, workflow: dict) -> dict:
        """Runs an API workflow; returns its outputs by node id. A node's error is raised with its message."""
        return self.outputs(self.queue(workflow))

    def follow(self, workflow: dict, on_nodes: Callable[[dict[str, dict]], None]) -> dict:
        """As `run`. Whenever a node gets on, `on_nodes` is told "value" and "max" of all that have begun, by id."""

        async def followed() -> str:
            async with aiohttp.ClientSession() as session:
                async with session.ws_connect(f"{self.address}/ws?clientId={CLIENT}", max_msg_size=0) as messages:
                    prompt_id = self.queue(workflow)
                    async for message in messages:
                        if message.type is not aiohttp.WSMsgType.TEXT:
                            continue  # previews
                        told = message.json()
                        if told["data"].get("prompt_id") != prompt_id:
                            continue
                        if told["type"] == "progress_state":
                            on_nodes(told["data"]["nodes"])
                        elif told["type"] in ENDED:
                            break
                    return prompt_id

        return self.outputs(asyncio.run(followed()))

    def outputs(self, prompt_id: str) -> dict:
        """The outputs of a queued workflow by node id, once it has ended. A node's error is raised with its message."""
        entry = self.wait(prompt_id)
        if entry["status"]["status_str"] != "success":
            raise RuntimeError(f"the workflow failed: {entry['status']['messages'][-1]}")
        return entry["outputs"]

    def images(self, outputs: list[dict]) -> list[Path]:
        """The files of a SaveImage node's output."""
        return [self.output / image["subfolder"] / image["filename"] for image in outputs]
