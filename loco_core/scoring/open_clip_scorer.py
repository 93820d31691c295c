"""An open_clip model as a scorer, from a file.

scorer = load_scorer(Path("ViT-B-16/open_clip_model.safetensors"))
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors import SafetensorError, safe_open

from ..images import in_8_bits
from ..weights_digest import weights_digest
from .clip_score import CosineScorer, SeenText

# Architectures, and the tag of the weights that open_clip would download for them.
DOWNLOADS = {
    "ViT-B-32": "laion2b_s34b_b79k",
    "ViT-B-16": "laion2b_s34b_b88k",
    "ViT-L-14": "laion2b_s32b_b82k",
    "ViT-H-14": "laion2b_s32b_b79k",
    "ViT-g-14": "laion2b_s34b_b88k",
    "ViT-bigG-14": "laion2b_s39b_b160k",
}
HUB_WEIGHTS, HUB_CONFIGURATION = "open_clip_model.safetensors", "open_clip_config.json"
# So begin the names of weights in transformers' files.
TRANSFORMERS = ("text_model.", "vision_model.")
# Tokens of CLIP's own tokenizer.
VOCABULARY = 49408


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
    from_hub = weights.name == HUB_WEIGHTS and (weights.parent / HUB_CONFIGURATION).is_file()
    if from_hub and architecture is not None:
        raise ValueError(
            f"architecture: {architecture!r}, but {HUB_CONFIGURATION} beside {weights.name} tells it; "
            "leave it to the file"
        )
    try:
        with safe_open(weights, "pt") as file:
            _refuse_transformers(weights, file.keys())
        if from_hub:
            _check_configuration(weights.parent / HUB_CONFIGURATION, {"model_cfg"})
            model = open_clip.create_model(f"local-dir:{weights.parent}", require_pretrained=True)
        else:
            model = open_clip.create_model(architecture or _register(weights), pretrained=str(weights))
    except (RuntimeError, KeyError, FileNotFoundError, SafetensorError) as error:
        said = str(error).partition("\n")[0].rstrip(":")  # torch then names every weight that does not fit
        raise ValueError(f"scorer: {weights.name} does not hold a model that open_clip can load ({said})") from error
    return ClipScorer(model, weights.parent.name if from_hub else weights.stem)


def _refuse_transformers(weights: Path, keys: Sequence[str]) -> None:
    """An error for a file of transformers, which names the same weights otherwise; clip_l.safetensors is one too."""
    if any(key.startswith(TRANSFORMERS) for key in keys):
        raise ValueError(
            f"scorer: {weights.name} is in transformers' format; take {HUB_WEIGHTS} and {HUB_CONFIGURATION} of a "
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
    _check_configuration(config, {"embed_dim", "vision_cfg", "text_cfg"})
    open_clip.add_model_config(config)
    return config.stem


def _check_configuration(config: Path, keys: set[str]) -> None:
    """An error unless the file beside the weights is JSON that holds these keys."""
    remedy = "put the model's own in its place, as open_clip offers it"
    try:
        told = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"scorer: {config.name} cannot be read as JSON ({error}); {remedy}") from error
    if not isinstance(told, dict) or not keys <= told.keys():
        raise ValueError(f"scorer: {config.name} is not an open_clip model configuration; {remedy}")
