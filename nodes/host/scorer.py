"""A scorer whose weights the host manages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher

from ...loco_core.scoring.clip_score import SeenText

if TYPE_CHECKING:
    from ...loco_core.scoring.open_clip_scorer import ClipScorer

# Images scored between two looks at Cancel: about a second of a ViT-B on a CPU.
AT_ONCE = 8


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

    def seen(self, text: str) -> SeenText:
        return self._scorer.seen(text)

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
