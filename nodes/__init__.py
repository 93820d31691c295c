"""What ComfyUI sees of the pack: its nodes, its model folders and its demo model."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import (
    clip_scorer,
    conditioning_injector,
    demo_model,
    edit_apply,
    layer_search,
    layer_select,
    layers_load,
)


class LocoExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        modules = (clip_scorer, layer_search, layer_select, layers_load, conditioning_injector, edit_apply)
        return [node for module in modules for node in module.NODES]


def extension() -> LocoExtension:
    clip_scorer.register_folder()
    demo_model.register()
    return LocoExtension()
