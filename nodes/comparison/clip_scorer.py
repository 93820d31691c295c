"""LoCo CLIP Scorer: an open_clip model that tells how well an image fits a text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import comfy.model_management
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ...loco_core.scoring.clip_score import DOWNLOADS, ClipScorer, download_scorer, load_scorer
from ..host.demo_model import DEMO
from ..host.folders import safetensors_files
from ..inputs.shared import scorer_output

FOLDER = "open_clip"
FROM_FILE = "from the file"
NO_FILE = "no file found"
# Images scored between two looks at Cancel: about a second of a ViT-B on a CPU.
AT_ONCE = 8


def register_folder() -> None:
    """models/open_clip, and the demo's scorer."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    folder_paths.add_model_folder_path(FOLDER, str(DEMO / FOLDER))


class ManagedScorer:
    """A scorer whose weights ComfyUI moves to the device when they are needed, and away when others need the room."""

    def __init__(self, scorer: ClipScorer) -> None:
        self.name, self.digest = scorer.name, scorer.digest
        self._scorer = scorer
        self._patcher = ModelPatcher(
            scorer.model,
            load_device=comfy.model_management.text_encoder_device(),
            offload_device=comfy.model_management.text_encoder_offload_device(),
        )

    def score(self, images: torch.Tensor, texts: list[str]) -> torch.Tensor:
        return self._in_parts(self._scorer.score, images, texts)

    def similarity(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        return self._in_parts(self._scorer.similarity, images, others)

    def _in_parts(self, measure: Callable, images: torch.Tensor, others) -> torch.Tensor:
        comfy.model_management.load_models_gpu([self._patcher], force_full_load=True)  # open_clip cannot run in parts
        scores = []
        for start in range(0, len(images), AT_ONCE):
            comfy.model_management.throw_exception_if_processing_interrupted()
            part = slice(start, start + AT_ONCE)
            scores.append(measure(images[part], others[part]))
        return torch.cat(scores)


class ClipScorerNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_CLIPScorer",
            display_name="LoCo CLIP Scorer",
            category="loco",
            search_aliases=["clip score", "clip similarity", "open clip", "openclip", "prompt match", "rate images"],
            description="Loads an open_clip model that measures how well an image fits a text (CLIP-Score). LocoGen "
            "Layer Search needs one.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=safetensors_files(FOLDER) or [NO_FILE],
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
        path = folder_paths.get_full_path(FOLDER, file)
        if path is None:
            raise ValueError(
                f"file: {file!r} is not in models/open_clip. Get a CLIP model in open_clip's format, for instance "
                "timm/vit_base_patch16_clip_224.openai from the Hugging Face Hub (open_clip_model.safetensors and "
                "open_clip_config.json), and put both files in models/open_clip/ViT-B-16"
            )
        return io.NodeOutput(
            ManagedScorer(load_scorer(Path(path), None if architecture == FROM_FILE else architecture))
        )


NODES = [ClipScorerNode]
