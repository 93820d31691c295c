"""LoCo Layer Select: cross-attention layers by index, by block, or as the paper found them."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.models.layers import block_name, parse_layers
from ...loco_core.models.presets import PRESETS, preset_layers
from ...loco_core.prompts import ATTRIBUTES
from ..host.engine import context_width, cross_attention_layers
from ..host.progress import show_text
from ..sockets import Layers

AS_WRITTEN = "as written"


def _preset_table() -> str:
    lines = []
    for (family, attribute), preset in PRESETS.items():
        last = preset.first + preset.window_size - 1
        lines.append(f"{family.name}, {attribute}: {preset.first}-{last} ({preset.source})")
    return "\n".join(lines)


class LayerSelectNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_LayerSelect",
            display_name="LoCo Layer Select",
            category="loco",
            description="Chooses cross-attention layers, counted from 0 in forward order (down, middle, up), and shows "
            "them by index and by block.",
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion 1.x, 2.x or SDXL model."),
                io.String.Input(
                    "layers",
                    default="8-9",
                    tooltip="Indices: 8-9, or 3, 8-9. Or blocks, counted from 0 among those that read the prompt: "
                    "d2.2-9 is transformer blocks 2 to 9 of the third block on the way down, m0 the middle, u1 all of "
                    "the second block on the way up. Empty: no layer.",
                ),
                io.Combo.Input(
                    "preset",
                    options=[AS_WRITTEN, *ATTRIBUTES],
                    default=AS_WRITTEN,
                    tooltip="The layers that the paper found for this model, in place of those written above.\n"
                    + _preset_table(),
                ),
            ],
            outputs=[
                Layers.Output(display_name="layers", tooltip="For the injector and LocoEdit Apply."),
                io.String.Output(display_name="text", tooltip="The layers by index and by block."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # so that a cached run shows the text again
        )

    @classmethod
    def execute(cls, model, layers: str, preset: str) -> io.NodeOutput:
        known = tuple(cross_attention_layers(model))
        if preset == AS_WRITTEN:
            chosen, source = parse_layers(layers, known), ""
        else:
            chosen, source = preset_layers(preset, len(known), context_width(model))
        blocks = ", ".join(block_name(known[index], known) for index in chosen)
        text = f"layers {chosen}: {blocks}" if len(chosen) else "no layer"
        text = f"{text}\n{source}" if source else text
        show_text(text, cls.hidden.unique_id)
        return io.NodeOutput(chosen, text, ui={"text": (text,)})


NODES = [LayerSelectNode]
