"""What ComfyUI sees of the pack: its nodes, its model folders and its demo model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib import import_module

from comfy_api.latest import ComfyExtension, io

from .host import demo_model, folders
from .host.loaded import checked
from .host.stopped import told_when_stopped

logger = logging.getLogger(__name__)

MODULES = (
    "comparison.clip_scorer",
    "comparison.clip_vision_scorer",
    "localization.probe",
    "localization.layer_search",
    "localization.layer_select",
    "localization.layers_load",
    "injection.conditioning_injector",
    "editing.remove",
    "editing.apply",
    "editing.solve",
    "editing.check",
    "editing.combine",
    "editing.save",
    "editing.load",
    "editing.export_lora",
    "comparison.erasure_report",
    "neurons.detect",
    "neurons.ablate",
    "neurons.save",
    "neurons.load",
    "neurons.sweep",
    "neurons.effects",
    "neurons.export_lora",
)


class LocoExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [told_when_stopped(checked(node)) for node in _nodes()]


def _nodes() -> Iterator[type[io.ComfyNode]]:
    """All nodes but those that need a Python package which is missing or broken; the log names it."""
    for module in MODULES:
        try:
            yield from import_module(f".{module}", __name__).NODES
        except (ImportError, OSError, RuntimeError) as error:  # what packages raise that do not fit each other
            if (getattr(error, "name", None) or "").startswith(__name__.rpartition(".")[0]):  # ours
                raise
            logger.error(
                "ComfyUI-Loco: no nodes of %s, for a Python package that they need cannot be imported (%s); run `pip "
                "install -r requirements.txt` in this pack's folder with ComfyUI's Python",
                module,
                error,
            )


def extension() -> LocoExtension:
    folders.register_folders()
    demo_model.register()
    return LocoExtension()
