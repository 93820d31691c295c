"""ComfyUI-Loco: find which cross-attention layers carry a style, an object or a fact, and edit exactly those."""

from __future__ import annotations

# Help pages of the nodes, and what shows their text.
WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    from .nodes import extension

    return extension()
