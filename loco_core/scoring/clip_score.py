"""CLIP-Score: how well an image fits a text, by two towers that embed both in one space (Hessel et al., 2021).

scorer: Scorer = load_scorer(Path("ViT-B-16/open_clip_model.safetensors"))   # open_clip_scorer.py
scorer.score(images, ["a red star", "a blue fish"])   # cosine x 100, clipped at 0
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional

from ..prompt_text import plain_text

# Points of CLIP-Score: a difference below it is no effect, however sure.
LEAST_EFFECT = 0.5


@dataclass(frozen=True)
class SeenText:
    """What a scorer sees of a text: the first of its `total` tokens, without those that begin and end it."""

    tokens: tuple[Hashable, ...]
    total: int

    @property
    def whole(self) -> bool:
        return len(self.tokens) == self.total


class Scorer(Protocol):
    """Scores images against texts; what the search asks for.

    name: for a person; digest: tells scorers apart by their weights.
    """

    name: str
    digest: str

    def seen(self, text: str) -> SeenText:
        """What it sees of a text, which may be longer than its text tower takes."""
        ...

    def score(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """One score per image [N, H, W, 3] and its own text: [N]."""
        ...

    def similarity(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """How alike each image [N, H, W, 3] is to the other of its place: [N]."""
        ...


def finite_scores(scorer: Scorer, images: torch.Tensor, texts: Sequence[str]) -> np.ndarray:
    """[N], as the scorer gives them; an error where one is NaN or Inf, out of which nothing could be concluded."""
    scores = scorer.score(images, texts).numpy()
    if not np.isfinite(scores).all():
        raise ValueError(f"scorer {scorer.name}: NaN or Inf in a score; its weights are damaged or the image is")
    return scores


class CosineScorer:
    """Two towers as a scorer: cosine x 100, clipped at 0 (Hessel et al., 2021). A subclass embeds texts and images."""

    def __init__(self, name: str, digest: str) -> None:
        self.name, self.digest = name, digest

    def seen(self, text: str) -> SeenText:
        """What `embed_texts` makes an embedding of."""
        raise NotImplementedError

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Text embeddings [N, d], of any length."""
        raise NotImplementedError

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings [N, d] of images (0..1, [N, H, W, 3]), of any length."""
        raise NotImplementedError

    @torch.no_grad()
    def score(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """CLIP-Score of each image (0..1, [N, H, W, 3]) against the prompt of its place, as plain text: float32 [N]."""
        if len(images) != len(texts):
            raise ValueError(f"scorer: {len(images)} images and {len(texts)} texts; give one text per image")
        texts = list(map(plain_text, texts))
        distinct = list(dict.fromkeys(texts))
        by_text = functional.normalize(self.embed_texts(distinct), dim=-1)
        by_image = functional.normalize(self.embed_images(images), dim=-1)
        cosines = (by_image * by_text[[distinct.index(text) for text in texts]]).sum(-1)
        return (100 * cosines).clamp(min=0).float().cpu()

    @torch.no_grad()
    def similarity(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """The cosine x 100 of the embeddings of each image (0..1, [N, H, W, 3]) and the other of its place: [N]."""
        seen = (functional.normalize(self.embed_images(part), dim=-1) for part in (images, others))
        return (100 * torch.mul(*seen).sum(-1)).float().cpu()
