"""The host's text encoders: prompts as embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.model_management
import torch
from comfy.sd import CLIP

from ...loco_core.models.engine import TextEmbedding
from ...loco_core.models.families.unet import UNET


def encode(clip: CLIP, prompts: Sequence[str]) -> list[TextEmbedding]:
    """Text embeddings of prompts at weight 1."""
    embeddings = []
    for prompt in prompts:
        comfy.model_management.throw_exception_if_processing_interrupted()
        towers = {
            tower: [[(token, 1.0, *rest) for token, _, *rest in chunk] for chunk in chunks]
            for tower, chunks in clip.tokenize(prompt).items()
        }
        tokens, pooled = clip.encode_from_tokens(towers, return_pooled=True)
        if not torch.isfinite(tokens).all():
            raise ValueError(f"clip: NaN or Inf in the text embedding of {prompt!r}")
        chunks = next(iter(towers.values()))
        last_chunk = UNET.chunk_length * (len(chunks) - 1)
        embeddings.append(
            TextEmbedding(
                prompt=prompt,
                tokens=tokens[0].float().cpu(),
                last_subject=last_chunk + _end_of_text(chunks[-1]) - 1,
                pooled=None if pooled is None else pooled[0].float().cpu(),
                last_chunk=last_chunk,
            )
        )
    return embeddings


def text_encoder(clip: CLIP) -> str:
    """Which text encoder, and which of its layers gives the embedding, as CLIP Set Last Layer says it."""
    layer = "last layer as the model's default" if clip.layer_idx is None else f"stop_at_clip_layer {clip.layer_idx}"
    return f"{type(clip.cond_stage_model).__name__}, {layer}"


def _end_of_text(chunk: list[tuple]) -> int:
    """The position of the first end-of-text token in a chunk of (token, weight); a textual inversion is a tensor."""
    for position, (token, *_) in enumerate(chunk):
        if not isinstance(token, torch.Tensor) and token == UNET.end_of_text:
            return position
    raise ValueError(
        "clip: its tokens have no end-of-text token; use the CLIP of a Stable Diffusion or SDXL checkpoint"
    )
