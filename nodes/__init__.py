"""What ComfyUI sees of the pack: its nodes, its model folders and its demo model."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import (
    clip_scorer,
    clip_vision_scorer,
    conditioning_injector,
    demo_model,
    edit_apply,
    edit_combine,
    edit_export_lora,
    edit_load,
    edit_save,
    edit_solve,
    erasure_report,
    files,
    layer_search,
    layer_select,
    layers_load,
    neuron_ablate,
    neuron_detect,
    neuron_effects,
    neuron_export_lora,
    neuron_load,
    neuron_save,
    neuron_sweep,
)

MODULES = (
    clip_scorer,
    clip_vision_scorer,
    layer_search,
    layer_select,
    layers_load,
    conditioning_injector,
    edit_apply,
    edit_solve,
    edit_combine,
    edit_save,
    edit_load,
    edit_export_lora,
    erasure_report,
    neuron_detect,
    neuron_ablate,
    neuron_save,
    neuron_load,
    neuron_sweep,
    neuron_effects,
    neuron_export_lora,
)


class LocoExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [node for module in MODULES for node in module.NODES]


def extension() -> LocoExtension:
    clip_scorer.register_folder()
    files.register_folders()
    demo_model.register()
    return LocoExtension()
