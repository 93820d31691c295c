"""What ComfyUI sees of the pack: its nodes, its model folders and its demo model."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .comparison import clip_scorer, clip_vision_scorer, erasure_report
from .editing import apply, combine, export_lora, load, save, solve
from .host import demo_model, folders
from .host.loaded import checked
from .injection import conditioning_injector
from .localization import layer_search, layer_select, layers_load
from .neurons import ablate, detect, effects, sweep
from .neurons import export_lora as neurons_export_lora
from .neurons import load as neurons_load
from .neurons import save as neurons_save

MODULES = (
    clip_scorer,
    clip_vision_scorer,
    layer_search,
    layer_select,
    layers_load,
    conditioning_injector,
    apply,
    solve,
    combine,
    save,
    load,
    export_lora,
    erasure_report,
    detect,
    ablate,
    neurons_save,
    neurons_load,
    sweep,
    effects,
    neurons_export_lora,
)


class LocoExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [checked(node) for module in MODULES for node in module.NODES]


def extension() -> LocoExtension:
    folders.register_folders()
    demo_model.register()
    return LocoExtension()
