"""LoCo CLIP Vision Scorer: a CLIP and a CLIP Vision that ComfyUI has loaded, as a scorer."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.scoring.tower_check import knows_colours
from ..host.clip_vision import ADVICE, ClipVisionScorer
from ..inputs.shared import scorer_output


class ClipVisionScorerNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_CLIPVisionScorer",
            display_name="LoCo CLIP Vision Scorer",
            category="loco/compare",
            search_aliases=["clip score", "clip similarity", "clip vision", "prompt match", "rate images"],
            description="Makes a scorer from a CLIP and its CLIP Vision, as the loaders of ComfyUI give them. It "
            "measures how well an image fits a text (CLIP-Score), for the nodes that score images.",
            inputs=[
                io.Clip.Input(
                    "clip",
                    tooltip="A CLIP with its text projection: from Load CLIP, or of an SDXL or SD 2.x checkpoint. The "
                    "CLIP of an SD 1.5 checkpoint has none.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    tooltip="The vision tower of the same CLIP: ViT-L/14 for clip_l, ViT-H/14 for SD 2.x, ViT-bigG for "
                    "the second text encoder of SDXL.",
                ),
            ],
            outputs=[scorer_output()],
        )

    @classmethod
    def execute(cls, clip, clip_vision) -> io.NodeOutput:
        scorer = ClipVisionScorer(clip, clip_vision)
        if not knows_colours(scorer):
            raise ValueError(
                "clip, clip_vision: together they do not tell plain colours apart. Either the CLIP's file has no text "
                "projection (that of an SD 1.5 checkpoint), or the two are not of one model, or training has changed "
                f"the CLIP so far that it does not fit images any more. {ADVICE}"
            )
        return io.NodeOutput(scorer)


NODES = [ClipVisionScorerNode]
