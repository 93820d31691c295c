"""Whether a loader found something in its file: of a checkpoint without text encoder, ComfyUI's CLIP is None."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from comfy.sd import VAE
from comfy_api.latest import io

# By the host's type of socket: what is missing, and what to connect.
MISSING = {
    "MODEL": "no diffusion model; connect Load Checkpoint or Load Diffusion Model",
    "CLIP": "no text encoder; connect the CLIP of Load CLIP, or of a checkpoint that holds one",
    "VAE": "no VAE; connect the VAE of Load VAE, or of a checkpoint that holds one",
    "CLIP_VISION": "no vision tower; connect Load CLIP Vision",
}


def checked(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node, which now looks at what is connected before it begins."""
    run = node.execute.__func__

    @functools.wraps(run)
    def execute(cls: type[io.ComfyNode], *args: Any, **inputs: Any) -> io.NodeOutput:
        check_loaded(cls.SCHEMA.inputs, inputs)
        return run(cls, *args, **inputs)

    node.execute = classmethod(execute)
    return node


def check_loaded(sockets: Sequence[io.Input], inputs: dict[str, Any]) -> None:
    """An error for the first input that is connected to a loader which found nothing for it."""
    for socket in sockets:
        missing = MISSING.get(socket.get_io_type())
        if missing and socket.id in inputs and _is_empty(inputs[socket.id]):
            raise ValueError(f"{socket.id}: the loader it is connected to found {missing}")


def _is_empty(value: Any) -> bool:
    """Of a checkpoint without VAE the host makes a VAE that holds no model."""
    return value is None or isinstance(value, VAE) and value.first_stage_model is None
