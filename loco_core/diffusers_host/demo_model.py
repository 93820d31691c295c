"""The demo checkpoint as a diffusers pipeline: SD 1.5's block structure, narrow, with TAESD as its VAE."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import diffusers
import open_clip
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..models.families.unet import UNET as FAMILY

DEMO = Path(__file__).resolve().parents[2] / "demo"
CHECKPOINT = DEMO / "checkpoints" / "loco_demo.safetensors"
SCORER = DEMO / "open_clip" / "loco_demo_clip.safetensors"
# What ComfyUI's latent format for SD 1.x multiplies by, and `vae_scale` in the checkpoint undoes.
LATENT_SCALE = 0.18215
UNET = {
    "sample_size": 16,
    "block_out_channels": (32, 64, 128, 128),
    "attention_head_dim": (1, 2, 4, 4),  # the number of heads, despite its name
    "cross_attention_dim": 128,
}
TEXT = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4, "num_hidden_layers": 2}
# CLIP's own, as every number in its vocabulary.
END_OF_TEXT = 49407
NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "clip_sample": False,
    "steps_offset": 1,
}


def demo_pipeline(checkpoint: Path = CHECKPOINT) -> diffusers.StableDiffusionPipeline:
    """The demo model in float32, or another `checkpoint` like it; an error that says where it should be if it is not
    there.
    """
    if not checkpoint.is_file():
        raise ValueError(f"model: the demo checkpoint is not at {checkpoint}; clone the whole repository")
    tensors = {key: value.float() for key, value in load_file(checkpoint).items()}
    return diffusers.StableDiffusionPipeline(
        vae=_vae(tensors),
        text_encoder=_text_encoder(tensors),
        tokenizer=clip_tokenizer(),
        unet=_unet(tensors),
        scheduler=diffusers.DDIMScheduler(**NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _unet(tensors: dict[str, torch.Tensor]) -> diffusers.UNet2DConditionModel:
    unet = diffusers.UNet2DConditionModel(**UNET)
    unet.load_state_dict(convert_ldm_unet_checkpoint(tensors, unet.config))
    return unet


def _vae(tensors: dict[str, torch.Tensor]) -> diffusers.AutoencoderTiny:
    """TAESD's layers are diffusers' own, but that the decoder's first, a clamp, has no number there."""
    scale = LATENT_SCALE / tensors["first_stage_model.vae_scale"].item()
    vae = diffusers.AutoencoderTiny(scaling_factor=scale)
    renamed = {}
    for key, value in tensors.items():
        part, _, rest = key.removeprefix("first_stage_model.taesd_").partition(".")
        if part in ("encoder", "decoder"):
            number, _, name = rest.partition(".")
            renamed[f"{part}.layers.{int(number) - (part == 'decoder')}.{name}"] = value
    vae.load_state_dict(renamed)
    return vae


def _text_encoder(tensors: dict[str, torch.Tensor]) -> CLIPTextModel:
    special = {"bos_token_id": END_OF_TEXT - 1, "eos_token_id": END_OF_TEXT}
    config = CLIPTextConfig(**TEXT, **special, hidden_act="gelu", vocab_size=END_OF_TEXT + 1)
    encoder = CLIPTextModel(config)
    prefix = "cond_stage_model.transformer.text_model."
    state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    inner = getattr(encoder, "text_model", encoder)  # transformers 4 wraps what transformers 5 is
    inner.load_state_dict(state)
    return encoder.eval()


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer from the vocabulary that open_clip brings."""
    bundled = open_clip.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): number for token, number in bundled.encoder.items()}
    merges = ["#version: 0.2", *(" ".join(pair) for pair in bundled.bpe_ranks)]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (Path(folder) / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=FAMILY.chunk_length)
