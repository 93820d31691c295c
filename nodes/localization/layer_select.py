"""LoCo Layer Select: cross-attention layers by index, by block, or as the paper found them."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.models.families.unet import UNET
from ...loco_core.prompts import Attribute
from ..host.layers import read_layers
from ..host.progress import node_output
from ..sockets import Layers

AS_WRITTEN = "as written"


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
                    options=[AS_WRITTEN, *Attribute.words()],
                    default=AS_WRITTEN,
                    tooltip="The layers that the paper found for this model, in place of those written above.\n"
                    + "\n".join(map(str, UNET.presets)),
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
        known, found = read_layers(model), []
        if preset == AS_WRITTEN:
            chosen = known.parse(layers)
        else:
            chosen, source = known.preset(preset)
            found = [str(source)]
        blocks = ", ".join(known.block_name(index) for index in chosen)
        text = "\n".join([f"layers {chosen}: {blocks}" if chosen else "no layer", *found])
        return node_output(cls, chosen, text, text=text)


NODES = [LayerSelectNode]
