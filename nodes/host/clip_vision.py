"""A CLIP and a CLIP Vision of the host as a scorer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import comfy.model_management
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.sd import CLIP
from comfy.sd1_clip import SDClipModel

from ...loco_core.prompt_text import literal
from ...loco_core.scoring.clip_score import CosineScorer, SeenText
from ...loco_core.weights_digest import weights_digest
from .digest import patched_weights_digest
from .scorer import AT_ONCE
from .text_encoder import Token

ADVICE = (
    "For instance clip_l.safetensors in Load CLIP (type stable_diffusion) with a CLIP ViT-L/14 in Load CLIP Vision, or "
    "the CLIP of SDXL with a CLIP ViT-bigG; or use LoCo CLIP Scorer"
)


class ClipVisionScorer(CosineScorer):
    """A text tower of a CLIP and the vision tower that was trained with it; the host moves both as they are needed."""

    def __init__(self, clip: CLIP, clip_vision: ClipVisionModel) -> None:
        width = _vision_width(clip_vision)
        self._clip, self._clip_vision, self._tower = clip, clip_vision, _text_tower(clip, width)
        self._known: dict[str, torch.Tensor] = {}  # texts are few: a GPU need not load their tower for every batch
        name = f"{type(clip.cond_stage_model).__name__}'s {self._tower} with a CLIP Vision, {width} wide"
        super().__init__(name, _digest(clip, self._tower, clip_vision))

    def seen(self, text: str) -> SeenText:
        chunks = self._chunks(text)
        words = [token for token, _, word in chunks[0] if word]
        tokens = tuple(tuple(token.tolist()) if isinstance(token, torch.Tensor) else token for token in words)
        return SeenText(tokens, sum(bool(word) for chunk in chunks for *_, word in chunk))

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        for text in texts:
            comfy.model_management.throw_exception_if_processing_interrupted()
            if text not in self._known:
                self._known[text] = self._encode(text)
        return torch.cat([self._known[text] for text in texts])

    def _encode(self, text: str) -> torch.Tensor:
        """The projected embedding [1, d] of the first chunk, at weight 1."""
        chunk = self._chunks(text)[0]
        towers = self._clip.cond_stage_model
        towers.reset_clip_options()
        patcher = self._clip.load_model()
        try:
            towers.set_clip_options({"projected_pooled": True, "execution_device": patcher.load_device})
            _, embedding = getattr(towers, self._tower).encode([[token for token, *_ in chunk]])[:2]
        finally:
            towers.reset_clip_options()
        return embedding.float().cpu()

    def _chunks(self, text: str) -> list[list[Token]]:
        """The tower's tokens of a caption, whose brackets are no weight's."""
        return self._clip.tokenize(literal(text), return_word_ids=True)[self._tower.removeprefix("clip_")]

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        seen = []
        for start in range(0, len(images), AT_ONCE):
            comfy.model_management.throw_exception_if_processing_interrupted()
            seen.append(self._clip_vision.encode_image(images[start : start + AT_ONCE])["image_embeds"].float().cpu())
        return torch.cat(seen)


def _vision_width(clip_vision: ClipVisionModel) -> int:
    projection = getattr(clip_vision.model, "visual_projection", None)
    if not isinstance(projection, torch.nn.Linear):
        raise ValueError(
            "clip_vision: it has no projection to a space shared with text (SigLIP and DINO have none, and some files "
            f"leave it out); load a CLIP's vision tower with its projection. {ADVICE}"
        )
    return projection.out_features


def _text_tower(clip: CLIP, width: int) -> str:
    """The name of the CLIP's text tower whose projected embeddings are `width` wide."""
    towers = {
        name: tower.transformer.text_projection
        for name, tower in clip.cond_stage_model.named_children()
        if isinstance(tower, SDClipModel) and hasattr(tower.transformer, "text_projection")
    }
    fitting = [name for name, projection in towers.items() if projection.out_features == width]
    if not fitting:
        widths = ", ".join(f"{projection.out_features} ({name})" for name, projection in towers.items()) or "none"
        raise ValueError(
            f"clip: the embeddings of its text towers are {widths} wide, those of clip_vision {width}; "
            f"they must be the two towers of one model. {ADVICE}"
        )
    weight = towers[fitting[0]].weight.float()
    if not torch.isfinite(weight).all() or not weight.any():
        raise ValueError(
            f"clip: its text tower {fitting[0]} has no projection to the space that images share (the CLIP of an SD "
            f"1.5 checkpoint has none); load one that has. {ADVICE}"
        )
    return fitting[0]


def _digest(clip: CLIP, tower: str, clip_vision: ClipVisionModel) -> str:
    """Of the weights of both towers, with what a LoRA changes in the text tower."""
    digest = hashlib.sha256(patched_weights_digest(clip.patcher, f"{tower}.transformer.").encode())
    digest.update(weights_digest(clip_vision.get_sd().values()).encode())
    return digest.hexdigest()[:16]
