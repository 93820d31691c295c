"""LoCo CLIP Scorer: an open_clip model that tells how well an image fits a text."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.scoring.open_clip_scorer import DOWNLOADS, download_scorer, load_scorer
from ..host.folders import SCORERS, safetensors_files, scorer_path
from ..host.scorer import ManagedScorer
from ..inputs.shared import scorer_output

FROM_FILE = "from the file"
NO_FILE = "no file found"


class ClipScorerNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_CLIPScorer",
            display_name="LoCo CLIP Scorer",
            category="loco/compare",
            search_aliases=["clip score", "clip similarity", "open clip", "openclip", "prompt match", "rate images"],
            description="Loads an open_clip model that measures how well an image fits a text (CLIP-Score), for "
            "the nodes that score images.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=safetensors_files(SCORERS) or [NO_FILE],
                    tooltip="A .safetensors file with open_clip weights in models/open_clip. A folder from the Hugging "
                    "Face Hub with open_clip_config.json and open_clip_model.safetensors works as it is. "
                    "loco_demo_clip belongs to the demo model and knows nothing else.",
                ),
                io.Combo.Input(
                    "architecture",
                    options=[FROM_FILE, *DOWNLOADS],
                    default=FROM_FILE,
                    advanced=True,
                    tooltip="'from the file' takes the architecture from the configuration beside the file. If there "
                    "is none, choose the open_clip architecture of the file here.",
                ),
                io.Boolean.Input(
                    "download",
                    default=False,
                    advanced=True,
                    tooltip="Off: only files on this computer are used. On: open_clip downloads the LAION weights of "
                    "the chosen architecture, and 'file' is ignored.",
                ),
            ],
            outputs=[scorer_output()],
        )

    @classmethod
    def execute(cls, file: str, architecture: str, download: bool) -> io.NodeOutput:
        if download:
            return io.NodeOutput(ManagedScorer(download_scorer(architecture)))
        named = None if architecture == FROM_FILE else architecture
        return io.NodeOutput(ManagedScorer(load_scorer(scorer_path(file), named)))


NODES = [ClipScorerNode]
