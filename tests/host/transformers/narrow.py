"""Transformers of the host's own classes, narrow and with random weights: each with its text encoder and its VAE."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from types import SimpleNamespace

import comfy.sd
import comfy.supported_models
import torch
from comfy.ldm.anima.model import LLMAdapter
from comfy.ldm.wan.vae import WanVAE
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy.supported_models_base import BASE, ClipTarget
from comfy.taesd.taesd import TAESD
from comfy.text_encoders import anima, cosmos, flux, qwen_image, sd3_clip, z_image

from made_up import randomized

CPU = torch.device("cpu")
WIDTH = 64
# Of Cosmos-Predict2's image models and of Anima, as ComfyUI reads it from a checkpoint, with fewer and narrower blocks.
COSMOS = {
    "max_img_h": 240,
    "max_img_w": 240,
    "max_frames": 128,
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 128,
    "num_blocks": 6,
    "num_heads": 4,
    "concat_padding_mask": True,
    "crossattn_emb_channels": WIDTH,
    "pos_emb_cls": "rope3d",
    "pos_emb_learnable": True,
    "pos_emb_interpolation": "crop",
    "use_adaln_lora": True,
    "adaln_lora_dim": 32,
    "rope_h_extrapolation_ratio": 4.0,
    "rope_w_extrapolation_ratio": 4.0,
    "rope_t_extrapolation_ratio": 1.0,
    "extra_per_block_abs_pos_emb": False,
    "rope_enable_fps_modulation": False,
}
QWEN = {
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "hidden_size": WIDTH,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
}
# As many layers as an encoder needs whose last but one is read.
CLIP_TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3}
T5 = {"d_model": WIDTH, "d_ff": 128, "d_kv": 16, "num_heads": 4, "num_layers": 2}


def patcher(config: BASE) -> ModelPatcher:
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, device="cpu")
    return ModelPatcher(model, load_device=CPU, offload_device=CPU)


def clip_of(target: ClipTarget, **towers: dict) -> CLIP:
    clip = CLIP(target, model_options={f"{name}_model_config": sizes for name, sizes in towers.items()})
    for module in clip.cond_stage_model.modules():
        if hasattr(module, "visual"):
            del module.visual  # which no prompt needs, and is not narrow
    randomized(clip.cond_stage_model)
    return clip


def image_vae() -> VAE:
    """Of 16 channels, as Flux, SD 3 and Z-Image have it."""
    return VAE(sd=randomized(TAESD(latent_channels=16)).state_dict())


def video_vae() -> VAE:
    """Of Wan 2.1, which Cosmos-Predict2, Anima and Qwen-Image use."""
    sizes = {"dim": 8, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": []}
    model = WanVAE(**sizes, temperal_downsample=[False, True, True], image_channels=3, conv_out_channels=3, dropout=0.0)
    return VAE(sd=randomized(model).state_dict())


def anima_model(blocks: int = COSMOS["num_blocks"]) -> SimpleNamespace:
    model = patcher(comfy.supported_models.Anima({"image_model": "anima", **COSMOS, "num_blocks": blocks}))
    transformer = model.model.diffusion_model
    sizes = {"source_dim": WIDTH, "target_dim": WIDTH, "model_dim": WIDTH, "num_layers": 2, "num_heads": 4}
    transformer.llm_adapter = LLMAdapter(**sizes, operations=comfy.ops.disable_weight_init)
    randomized(transformer)
    clip = clip_of(ClipTarget(anima.AnimaTokenizer, anima.te()), qwen3_06b=QWEN)
    return SimpleNamespace(model=model, clip=clip, vae=video_vae())


def cosmos_model() -> SimpleNamespace:
    model = patcher(comfy.supported_models.CosmosT2IPredict2({"image_model": "cosmos_predict2", **COSMOS}))
    randomized(model.model.diffusion_model)
    clip = clip_of(ClipTarget(cosmos.CosmosT5Tokenizer, cosmos.te()), t5xxl=T5)
    return SimpleNamespace(model=model, clip=clip, vae=video_vae())


def narrow_lora(blocks: list[int]) -> dict[str, torch.Tensor]:
    """A LoRA of kohya's naming of the values of some blocks."""
    generator = torch.Generator().manual_seed(3)
    return {
        f"lora_unet_blocks_{block}_cross_attn_v_proj.{name}.weight": 0.2 * torch.randn(shape, generator=generator)
        for block in blocks
        for name, shape in (("lora_up", (COSMOS["model_channels"], 4)), ("lora_down", (4, WIDTH)))
    }


# --- blocks that change the text --------------------------------------------------------------------------------------

FLUX = {
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 32,
    "context_in_dim": WIDTH,
    "hidden_size": 128,
    "mlp_ratio": 2.0,
    "num_heads": 4,
    "depth": 3,
    "depth_single_blocks": 3,
    "axes_dim": [8, 12, 12],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}
FLUX2 = {**FLUX, "in_channels": 128, "out_channels": 128, "patch_size": 1, "axes_dim": [8, 8, 8, 8], "theta": 2000}
FLUX2 |= {"vec_in_dim": None, "qkv_bias": False, "txt_ids_dims": [3], "global_modulation": True, "mlp_silu_act": True}
CHROMA = {name: value for name, value in FLUX.items() if name != "guidance_embed"}
CHROMA |= {"in_channels": 64, "out_channels": 64, "in_dim": 64, "out_dim": 128, "hidden_dim": 64, "n_layers": 2}
SD3 = {
    "in_channels": 16,
    "patch_size": 2,
    "depth": 2,
    "num_blocks": 6,
    "input_size": None,
    "adm_in_channels": 32,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": WIDTH, "out_features": 128}},
    "pos_embed_max_size": 16,
    "num_patches": 256,
    "pos_embed_scaling_factor": None,
    "qk_norm": "rms",
    "x_block_self_attn_layers": [0, 1],
}
QWEN_IMAGE = {
    "in_channels": 64,
    "num_layers": 6,
    "attention_head_dim": 32,
    "num_attention_heads": 4,
    "joint_attention_dim": WIDTH,
    "axes_dims_rope": (8, 12, 12),
}
Z_IMAGE = {
    "in_channels": 16,
    "patch_size": 2,
    "dim": 256,
    "n_layers": 6,
    "n_refiner_layers": 2,
    "n_heads": 8,
    "n_kv_heads": 8,
    "qk_norm": True,
    "cap_feat_dim": WIDTH,
    "axes_dims": [8, 12, 12],
    "axes_lens": [1536, 512, 512],
    "rope_theta": 256.0,
    "ffn_dim_multiplier": 1.0,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}


def joint_model(name: str, **changes: object) -> ModelPatcher:
    """One of JOINT, by name."""
    kind, config = JOINT[name]
    model = patcher(kind({**kind.unet_config, **config, **changes}))
    randomized(model.model.diffusion_model)
    return model


WAN = {
    "model_type": "t2v",
    "patch_size": (1, 2, 2),
    "in_dim": 16,
    "out_dim": 16,
    "dim": 128,
    "ffn_dim": 256,
    "freq_dim": 256,
    "text_dim": WIDTH,
    "num_heads": 2,
    "num_layers": 6,
}
JOINT: dict[str, tuple[type[BASE], dict]] = {
    "sd3": (comfy.supported_models.SD3, SD3),
    "flux": (comfy.supported_models.Flux, FLUX),
    "flux2": (comfy.supported_models.Flux2, FLUX2),
    "chroma": (comfy.supported_models.Chroma, CHROMA),
    "z_image": (comfy.supported_models.ZImage, Z_IMAGE),
    "qwen": (comfy.supported_models.QwenImage, QWEN_IMAGE),
    "wan": (comfy.supported_models.WAN21_T2V, WAN),
}


# --- with all that a workflow needs -----------------------------------------------------------------------------------


def flux_model(double: int = 19, single: int = 38) -> SimpleNamespace:
    clip = clip_of(ClipTarget(flux.FluxTokenizer, flux.flux_clip()), clip_l=CLIP_TOWER, t5xxl=T5)
    model = joint_model("flux", depth=double, depth_single_blocks=single)
    return SimpleNamespace(model=model, clip=clip, vae=image_vae())


def sd3_model(blocks: int = 38) -> SimpleNamespace:
    """Without T5, as it may be loaded: the host pads what the other two give, 64 wide, to a width of 4096."""
    target = ClipTarget(sd3_clip.SD3Tokenizer, sd3_clip.sd3_clip(t5=False))
    clip = clip_of(target, clip_l=CLIP_TOWER, clip_g=CLIP_TOWER)
    context = {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128}}
    pooled = 2 * CLIP_TOWER["hidden_size"]
    model = joint_model("sd3", num_blocks=blocks, context_embedder_config=context, adm_in_channels=pooled)
    model.model.diffusion_model.context_embedder.weight.data *= (4096 / 64) ** 0.5
    return SimpleNamespace(model=model, clip=clip, vae=image_vae())


def z_image_model(blocks: int = 30) -> SimpleNamespace:
    target = ClipTarget(z_image.ZImageTokenizer, z_image.te())
    clip = clip_of(target, qwen3_4b={**QWEN, "num_hidden_layers": 3})
    return SimpleNamespace(model=joint_model("z_image", n_layers=blocks), clip=clip, vae=image_vae())


def qwen_image_model(blocks: int = 60) -> SimpleNamespace:
    clip = clip_of(ClipTarget(qwen_image.QwenImageTokenizer, qwen_image.te()), qwen25_7b=QWEN)
    return SimpleNamespace(model=joint_model("qwen", num_layers=blocks), clip=clip, vae=video_vae())


# With as many blocks as published.
COMPLETE: dict[str, Callable[[], SimpleNamespace]] = {
    "anima": cache(partial(anima_model, 28)),
    "flux": cache(flux_model),
    "sd3": cache(sd3_model),
    "z_image": cache(z_image_model),
    "qwen": cache(qwen_image_model),
}
# With fewer, of which graphs in a browser ask a few hundred times.
SHALLOW: dict[str, Callable[[], SimpleNamespace]] = {
    "anima": cache(partial(anima_model, 4)),
    "flux": cache(partial(flux_model, 3, 2)),
    "sd3": cache(partial(sd3_model, 4)),
    "z_image": cache(partial(z_image_model, 4)),
    "qwen": cache(partial(qwen_image_model, 4)),
}
