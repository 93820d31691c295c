"""LoCo Layer Select: cross-attention layers by index, by block, or as the paper found them."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.models.families.unet import UNET
from ...loco_core.prompts import Attribute
from ...loco_core.report import Report
from ..host.layers import read_layers
from ..host.progress import node_output
from ..inputs.shared import ANY_MODEL, layers_output

AS_WRITTEN = "as written"


class LayerSelectNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_LayerSelect",
            display_name="LoCo Layer Select",
            category="loco/find layers",
            search_aliases=[
                "choose layers",
                "pick layers",
                "layers by hand",
                "layers 8-9",
                "layer numbers",
                "layer preset",
                "unet blocks",
            ],
            description="Chooses cross-attention layers by hand, or those that the paper found. Layers are counted "
            "from 0 in forward order: down, middle, up. The node shows them by index and by block.",
            inputs=[
                io.Model.Input("model", tooltip=ANY_MODEL),
                io.String.Input(
                    "layers",
                    default="8-9",
                    tooltip="Indices: '8-9', or '3, 8-9'; of a transformer these are its blocks, which have names too: "
                    "'double 7-18, single 0-9'. Or blocks of a U-Net, "
                    "counted from 0 among those that get the prompt: 'm0' is the middle, 'u1' all of the second block "
                    "on the way up, 'd2.2-9' transformer blocks 2 to 9 of the third block on the way down. Names of "
                    "other programs work too: 'OUT04', 'MID', 'output:0'. 'all': every layer. Empty: no layer.",
                ),
                io.Combo.Input(
                    "preset",
                    options=[AS_WRITTEN, *Attribute.words()],
                    default=AS_WRITTEN,
                    tooltip="'as written' uses the layers above. 'style', 'object' and 'fact' use the layers that the "
                    "paper found for this model instead.\n" + "\n".join(map(str, UNET.presets)),
                ),
            ],
            outputs=[
                layers_output("The layers"),
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
            chosen, source = known.preset(Attribute.parse(preset, "preset"))
            found = [str(source)]
        report = Report((f"{chosen.named}, blocks {known.block_names(chosen)}" if chosen else "no layer", *found))
        return node_output(cls, chosen, report, report=report)


NODES = [LayerSelectNode]
