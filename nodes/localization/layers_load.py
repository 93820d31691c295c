"""LoCo Layers Load: the layers that an earlier search found and saved."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.localization.report import layers_of_search
from ...loco_core.report import Report
from ..host.folders import changed_at, saved_searches, search_path
from ..host.progress import node_output
from ..inputs.shared import layers_output

NO_FILE = "no search saved yet"


class LayersLoadNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_LayersLoad",
            display_name="LoCo Layers Load",
            category="loco/find layers",
            search_aliases=["load layers", "found layers", "saved search", "search result"],
            description="Loads the layers that LoCo Layer Search found and saved, so that you search only once.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=saved_searches() or [NO_FILE],
                    tooltip="The .json file of a search in the output folder. The newest is first.",
                )
            ],
            outputs=[
                layers_output("The layers"),
                io.String.Output(display_name="text", tooltip="Which layers, and which search found them."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # so that a cached run shows the text again
        )

    @classmethod
    def fingerprint_inputs(cls, file: str | None) -> float:
        return changed_at(search_path, file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        layers, said = layers_of_search(search_path(file).read_text(encoding="utf-8"), file)
        report = Report((said,))
        return node_output(cls, layers, report, report=report)


NODES = [LayersLoadNode]
