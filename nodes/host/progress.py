"""What a node shows while it works: the bar, a preview, a line of text."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image
from server import PromptServer

from ...loco_core.images import Progress
from ...loco_core.report import Report

Result = TypeVar("Result")

# Largest side of a preview, in pixels.
PREVIEW = 512
# How far the work of a node is, by the node's id.
_PLACES: dict[str | None, str] = {}


def node_output(
    node: type[io.ComfyNode], *outputs: Any, report: Report, images: Sequence[torch.Tensor] = ()
) -> io.NodeOutput:
    """A node's outputs, with the result in words and pictures [1, H, W, 3] on the node; a report among the outputs is
    its whole text.

    The host tells both to the browser, keeps them in its history, and tells them again where the outputs are cached;
    web/text.js then shows the text. The first picture also takes the place of what was shown while the node worked.
    """
    if images:
        picture = Image.fromarray(images[0][0].mul(255).round().byte().numpy())
        comfy.utils.ProgressBar(1).update_absolute(1, preview=("PNG", picture, None))
    previews = [value for image in images for value in ui.PreviewImage(image, cls=node).values]
    shown: dict[str, Any] = {"text": (report.brief,)}
    if previews:
        shown["images"] = previews
    return io.NodeOutput(*(str(output) if output is report else output for output in outputs), ui=shown)


def to_image(picture: np.ndarray) -> torch.Tensor:
    """A uint8 picture [H, W, 3] as the host's IMAGE: float32 [1, H, W, 3] in 0..1."""
    return torch.from_numpy(picture).float().div(255)[None]


def stop_if_cancelled() -> None:
    """Ends the work where the person has pressed Cancel."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def with_bar(function: Callable[[int], Result], total: int) -> Callable[[int], Result]:
    """The same function, of which `total` calls fill a bar; Cancel ends it."""
    bar = comfy.utils.ProgressBar(total)

    def run(argument: int) -> Result:
        stop_if_cancelled()
        result = function(argument)
        bar.update(1)
        return result

    return run


def show_text(text: str, node_id: str | None) -> None:
    """Puts text on the node in the browser; does nothing where no server runs."""
    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id is not None:
        server.send_progress_text(text, node_id)


def executing_node() -> str | None:
    """The id of the node that the host executes; none where no server runs."""
    return getattr(getattr(PromptServer, "instance", None), "last_node_id", None)


def begin(node_id: str | None) -> None:
    """Forgets how far the work of a node was in an earlier run."""
    _PLACES.pop(node_id, None)


def place(node_id: str | None) -> str:
    """How far the work of a node was when it last said so."""
    return _PLACES.get(node_id, "the beginning")


class ImageProgress:
    """One bar over every image's sampler steps; `intro`, then what is in work, as text and picture.

    A batch counts as one image while it is made: how many it holds is known when it is done. The time left is told by
    what this run has made: images of an earlier one, which a search goes on with, took no time. `resumed`: what becomes
    of work that is stopped.
    """

    def __init__(self, images: int, steps: int, node_id: str | None, intro: str, resumed: str = "") -> None:
        self._steps, self._node_id, self._resumed = steps, node_id, resumed
        _PLACES[node_id] = f"0 of {images} images"
        self._bar = comfy.utils.ProgressBar(images * steps)
        self._begun = time.monotonic()
        show_text(intro, node_id)

    def on_step(self) -> None:
        self._bar.update(1)

    def on_batch(self, done: int, total: int, label: str, thumbnail: np.ndarray, recalled: int = 0) -> None:
        """`done` of `total` images, `recalled` of them by an earlier run."""
        self._bar.update_absolute(done * self._steps, preview=("JPEG", Image.fromarray(thumbnail), PREVIEW))
        told = f"{done} of {total} images, {label}"
        _PLACES[self._node_id] = f"{done} of {total} images{self._resumed}"
        if done > recalled:
            left = (time.monotonic() - self._begun) / (done - recalled) * (total - done)
            told = f"{told}, {duration(left)} left"
        show_text(told, self._node_id)


def image_progress(images: int, steps: int, node_id: str | None) -> Progress:
    """An ImageProgress as loco_core asks for one."""
    shown = ImageProgress(images, steps, node_id, f"{images} images")
    return Progress(shown.on_batch, shown.on_step)


class CountProgress:
    """A bar over about so many of anything, the denoiser's rows as a rule; Cancel ends it."""

    def __init__(self, about: int, node_id: str | None, doing: str) -> None:
        self._about, self._node_id, self._doing = about, node_id, doing
        self._bar = comfy.utils.ProgressBar(about)
        self._tell(0)

    def __call__(self, done: int) -> None:
        stop_if_cancelled()
        self._bar.update_absolute(min(done, self._about))
        self._tell(done)

    def _tell(self, done: int) -> None:
        share = f"{min(done / self._about, 1):.0%}"
        _PLACES[self._node_id] = f"{share}, {self._doing}"
        show_text(f"{self._doing}: {share}", self._node_id)


def duration(seconds: float) -> str:
    """Seconds as a person says them: "40 s", "3 min", "1 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
