"""What ComfyUI sees of the pack: its nodes, its model folders and its demo model."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import clip_scorer, demo_model, edit_apply, layer_search


class LocoExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [*clip_scorer.NODES, *layer_search.NODES, *edit_apply.NODES]


def extension() -> LocoExtension:
    clip_scorer.register_folder()
    demo_model.register()
    return LocoExtension()
