"""CLIP-Score: how well an image fits a text, by two towers that embed both in one space (Hessel et al., 2021).

scorer = load_scorer(Path("ViT-B-16/open_clip_model.safetensors"))
scorer.score(images, ["a red star", "a blue fish"])   # cosine x 100, clipped at 0
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch.nn import functional

from ..images import in_8_bits
from ..prompt_text import plain_text
from ..weights_digest import weights_digest

# Architectures, and the tag of the weights that open_clip would download for them.
DOWNLOADS = {
    "ViT-B-32": "laion2b_s34b_b79k",
    "ViT-B-16": "laion2b_s34b_b88k",
    "ViT-L-14": "laion2b_s32b_b82k",
    "ViT-H-14": "laion2b_s32b_b79k",
    "ViT-g-14": "laion2b_s34b_b88k",
    "ViT-bigG-14": "laion2b_s39b_b160k",
}
HUB_WEIGHTS = "open_clip_model.safetensors"
# So begin the names of weights in transformers' files.
TRANSFORMERS = ("text_model.", "vision_model.")
# Tokens of CLIP's own tokenizer.
VOCABULARY = 49408
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


class ClipScorer(CosineScorer):
    """An open_clip model with CLIP's own tokens as a scorer."""

    def __init__(self, model: Any, name: str) -> None:
        if getattr(model, "text", model).vocab_size != VOCABULARY:
            raise ValueError(
                f"scorer: {name} has other tokens than CLIP's, as SigLIP and multilingual models do; use a CLIP"
            )
        super().__init__(name, weights_digest(model.parameters()))
        self.model = model.eval().requires_grad_(False)
        self._preprocess = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
        self._tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def seen(self, text: str) -> SeenText:
        tokens = self._tokenizer.encode(text)
        return SeenText(tuple(tokens[: self.model.context_length - 2]), len(tokens))

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        return self.model.encode_text(self._tokenizer(list(texts)).to(self._device))

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        pictures = [Image.fromarray(image.numpy()) for image in in_8_bits(images).cpu()]
        pixels = torch.stack([self._preprocess(picture) for picture in pictures]).to(self._device)
        return self.model.encode_image(pixels)


def load_scorer(weights: Path, architecture: str | None = None) -> ClipScorer:
    """The scorer in a .safetensors file of open_clip weights.

    Its configuration is open_clip_config.json in the folder of an open_clip_model.safetensors, as the Hugging Face Hub
    offers them, which then gives the scorer its name; or that of the `architecture` named; or a .json of the file's own
    name. An error where two tell it: architectures that differ in an activation alone read the same file.
    """
    if weights.suffix != ".safetensors" or not weights.is_file():
        raise ValueError(f"scorer: {weights.name} is not a .safetensors file")
    from_hub = weights.name == HUB_WEIGHTS and (weights.parent / "open_clip_config.json").is_file()
    if from_hub and architecture is not None:
        raise ValueError(
            f"architecture: {architecture!r}, but open_clip_config.json beside {weights.name} tells it; "
            "leave it to the file"
        )
    try:
        with safe_open(weights, "pt") as file:
            _refuse_transformers(weights, file.keys())
        if from_hub:
            model = open_clip.create_model(f"local-dir:{weights.parent}", require_pretrained=True)
        else:
            model = open_clip.create_model(architecture or _register(weights), pretrained=str(weights))
    except (RuntimeError, KeyError, FileNotFoundError, SafetensorError) as error:
        raise ValueError(f"scorer: {weights.name} does not hold a model that open_clip can load ({error})") from error
    return ClipScorer(model, weights.parent.name if from_hub else weights.stem)


def _refuse_transformers(weights: Path, keys: Sequence[str]) -> None:
    """An error for a file of transformers, which names the same weights otherwise; clip_l.safetensors is one too."""
    if any(key.startswith(TRANSFORMERS) for key in keys):
        raise ValueError(
            f"scorer: {weights.name} is in transformers' format; take {HUB_WEIGHTS} and open_clip_config.json of a "
            "model in open_clip's format, for instance timm/vit_base_patch16_clip_224.openai from the Hugging Face "
            "Hub. In ComfyUI, Load CLIP, Load CLIP Vision and LoCo CLIP Vision Scorer take transformers' files"
        )


def download_scorer(architecture: str) -> ClipScorer:
    """open_clip's own download of LAION's weights for one of the architectures in DOWNLOADS."""
    if architecture not in DOWNLOADS:
        raise ValueError(f"architecture: {architecture!r}; to download, choose one of {', '.join(DOWNLOADS)}")
    return ClipScorer(open_clip.create_model(architecture, pretrained=DOWNLOADS[architecture]), architecture)


def _register(weights: Path) -> str:
    """Makes the model configuration beside the weights known to open_clip; returns its name there."""
    config = weights.with_suffix(".json")
    if not config.is_file():
        raise ValueError(
            f"scorer: {weights.name} does not tell its architecture; choose it, or put open_clip's model configuration "
            f"beside it as {config.name}"
        )
    if not {"embed_dim", "vision_cfg", "text_cfg"} <= json.loads(config.read_text(encoding="utf-8")).keys():
        raise ValueError(f"scorer: {config.name} is not an open_clip model configuration")
    open_clip.add_model_config(config)
    return config.stem
