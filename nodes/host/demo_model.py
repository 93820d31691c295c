"""Makes the host's own loaders know the demo model and the demo transformer: configurations and folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.supported_models
import folder_paths
import torch
from comfy import model_base, sd1_clip
from comfy.model_base import ModelType
from comfy.supported_models_base import ClipTarget

from ...demo.dit import TOKENS
from ...loco_core.models.families.unet import UNET

DEMO = Path(__file__).resolve().parents[2] / "demo"

TEXT_ENCODER = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "hidden_act": "gelu",
    "max_position_embeddings": UNET.chunk_length,
    "eos_token_id": 49407,
}


class DemoTextEncoder(sd1_clip.SDClipModel):
    """A small CLIP text model; everything else about it is Stable Diffusion 1's."""

    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(
            device=device,
            dtype=dtype,
            return_projected_pooled=False,
            textmodel_json_config=dict(TEXT_ENCODER),
            model_options=model_options or {},
        )


class DemoClip(sd1_clip.SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(device=device, dtype=dtype, model_options=model_options or {}, clip_model=DemoTextEncoder)


class LocoDemo(comfy.supported_models.SD15):
    """SD 1.5's blocks at a tenth of its width, trained on v-prediction (see demo/train.py)."""

    unet_config = {**comfy.supported_models.SD15.unet_config, "context_dim": 128, "model_channels": 32}
    unet_extra_config = {"num_heads": -1, "num_head_channels": 32}

    def model_type(self, state_dict, prefix=""):
        return ModelType.V_PREDICTION

    def clip_target(self, state_dict=None):
        return ClipTarget(sd1_clip.SD1Tokenizer, DemoClip)


class DemoTransformer(model_base.SD3):
    """Gets the first tokens of a prompt, all that its training had."""

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        text = kwargs.get("cross_attn")
        return super().extra_conds(**kwargs | ({} if text is None else {"cross_attn": text[:, :TOKENS]}))


class LocoDemoTransformer(comfy.supported_models.SD3):
    """SD 3's blocks, narrow, on the demo model's latents and text encoder (see demo/train.py)."""

    unet_config = {**comfy.supported_models.SD3.unet_config, "in_channels": 4}
    unet_extra_config = {"num_blocks": 12}
    sampling_settings = {"shift": 1.0}
    latent_format = comfy.supported_models.SD15.latent_format

    def get_model(
        self, state_dict: dict[str, torch.Tensor], prefix: str = "", device: torch.device | None = None
    ) -> DemoTransformer:
        return DemoTransformer(self, device=device)


def register() -> None:
    """Adds the configurations to the host's list and the files' folders to its own."""
    models = comfy.supported_models.models
    for demo in (LocoDemo, LocoDemoTransformer):
        if not any(model.__name__ == demo.__name__ for model in models):
            models.append(demo)
    folder_paths.add_model_folder_path("checkpoints", str(DEMO / "checkpoints"))
    folder_paths.add_model_folder_path("diffusion_models", str(DEMO / "diffusion_models"))
