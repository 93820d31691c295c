"""The demo transformer in a ComfyUI in this process, as a bench for edits: COMFYUI_PATH says which ComfyUI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmarks.comfy_in_process import host_in_process
from benchmarks.edit_bench import Bench
from demo.training.stream_plan import BLOCKS, PLANTING
from loco_core.editing.lora import edit_lora
from loco_core.editing.solve import Edit
from loco_core.models.layers import LayerSet, Part
from loco_core.prompts import Attribute


class TransformerBench(Bench):
    """Peers edit the weight by which text comes in, and so does an edit of ours of all blocks."""

    def __init__(self) -> None:
        torch.set_grad_enabled(False)
        self._pack, demo = host_in_process(os.environ["COMFYUI_PATH"])
        import nodes

        (self._model,) = nodes.UNETLoader().load_unet("loco_demo_transformer.safetensors", "default")
        self._layers = self._pack("nodes.host.layers").read_layers(self._model)
        self._clip, self._vae = demo.clip, demo.vae
        found = {Attribute.STYLE: LayerSet(PLANTING.style, BLOCKS), Attribute.FACT: LayerSet(PLANTING.fact, BLOCKS)}
        super().__init__(self._engine_on(self._model), found)

    def _engine_on(self, model):
        return self._pack("nodes.host.engine").ComfyEngine(model, self._clip, self._vae, self._layers)

    def weights(self, layers: LayerSet, part: Part) -> list[torch.Tensor]:
        return [self._model.get_model_object(f"{self._layers.text_in}.weight").data]

    @contextmanager
    def edited(self, edit: Edit) -> Iterator[None]:
        unedited = self.engine
        self.engine = self._engine_on(self._pack("nodes.host.editing").apply_edit(self._model, self._layers, edit, 1.0))
        try:
            yield
        finally:
            self.engine = unedited

    def lora(self, edit: Edit) -> dict[str, torch.Tensor]:
        if edit.recipe.layers != self._layers.all:
            return {}
        return edit_lora(edit, self._layers, self.engine.key_value_weights)
