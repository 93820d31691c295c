"""U-Nets of every family that ComfyUI knows, built as diffusers does from their own configurations: without weights."""

from __future__ import annotations

import diffusers
import torch

SD1 = {
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SD2 = {**SD1, "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
XL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
REFINER = {
    **XL,
    "block_out_channels": (384, 768, 1536, 1536),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": 4,
    "attention_head_dim": (6, 12, 24, 24),
    "cross_attention_dim": 1280,
    "projection_class_embeddings_input_dim": 2560,
}
# One ResNet to a level, no middle block.
SMALL = {"layers_per_block": 1, "mid_block_type": None}
XS = {
    **SMALL,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": XL["down_block_types"],
    "up_block_types": XL["up_block_types"],
}
CONFIGS = {
    "SD 1.5": SD1,
    "SD 2.1": SD2,
    "SDXL": XL,
    "SDXL Refiner": REFINER,
    "SSD-1B": {
        **XL,
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": (1, 2, 4),
        "reverse_transformer_layers_per_block": ((4, 4, 10), (2, 1, 1), 1),
    },
    "Segmind Vega": {**XL, "mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": (1, 1, 2)},
    "KOALA 700M": {**XL, **SMALL, "transformer_layers_per_block": (1, 2, 5)},
    "KOALA 1B": {**XL, "layers_per_block": 1, "transformer_layers_per_block": (1, 2, 6)},
    "SDXS": {**XS, "cross_attention_dim": 768, "attention_head_dim": (5, 10, 20)},
    "SDXS 0.9": {
        **XS,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3,
        "up_block_types": ("CrossAttnUpBlock2D",) * 3,
    },
    "LCM, distilled to one number": {**SD1, "time_cond_proj_dim": 256},
}
# A structure that no released model has: its levels differ.
UNEVEN = {**SD1, "layers_per_block": (1, 3, 2, 1)}


def unet_of(config: dict) -> diffusers.UNet2DConditionModel:
    with torch.device("meta"):
        return diffusers.UNet2DConditionModel(**config)
