"""Pipelines of diffusers with narrow transformers and random weights: SD 3 and Flux, and the parts that others need."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from loco_core.diffusers_host.demo_model import clip_tokenizer
from made_up import randomized

WORDS = "<pad> </s> a painting in the style of van gogh red star blue fish picture woodcut".split()
# Of T5's embeddings; of each of CLIP's.
WIDTH, CLIP_WIDTH = 64, 32
# As deep as it has heads, of 64 each: by that ComfyUI finds the weights of diffusers' SD 3.
SD3 = {
    "sample_size": 16,
    "num_layers": 4,
    "attention_head_dim": 64,
    "num_attention_heads": 4,
    "joint_attention_dim": WIDTH,
    "caption_projection_dim": 256,
    "pooled_projection_dim": 2 * CLIP_WIDTH,
    "pos_embed_max_size": 16,
    "dual_attention_layers": (0, 1),
    "qk_norm": "rms_norm",
}
FLUX = {
    "num_layers": 3,
    "num_single_layers": 3,
    "attention_head_dim": 32,
    "num_attention_heads": 4,
    "joint_attention_dim": WIDTH,
    "pooled_projection_dim": CLIP_WIDTH,
    "guidance_embeds": True,
    "axes_dims_rope": (8, 12, 12),
}


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Words in place of T5's pieces, which nobody may download here; the end token and the padding are T5's."""
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="<pad>")


def t5_encoder(width: int) -> T5EncoderModel:
    config = T5Config(vocab_size=len(WORDS), d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2, eos_token_id=1)
    return T5EncoderModel(config).eval()


def clip_encoder(kind: type, width: int) -> CLIPTextModel | CLIPTextModelWithProjection:
    torch.manual_seed(0)
    return kind(
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=64,
            num_attention_heads=2,
            num_hidden_layers=3,
            projection_dim=width,
            bos_token_id=49406,
            eos_token_id=49407,
        )
    ).eval()


def narrow_vae(**config: Any) -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        **config,
    ).eval()


def flow_vae() -> diffusers.AutoencoderKL:
    return narrow_vae(latent_channels=16, scaling_factor=0.36, shift_factor=0.11)


def sd3_pipeline(with_t5: bool = True, **config: Any) -> diffusers.StableDiffusion3Pipeline:
    """`config`: of the transformer."""
    torch.manual_seed(0)
    return diffusers.StableDiffusion3Pipeline(
        transformer=randomized(diffusers.SD3Transformer2DModel(**{**SD3, **config})),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=flow_vae(),
        text_encoder=clip_encoder(CLIPTextModelWithProjection, CLIP_WIDTH),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_encoder(CLIPTextModelWithProjection, CLIP_WIDTH),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_encoder(WIDTH) if with_t5 else None,
        tokenizer_3=word_tokenizer() if with_t5 else None,
    )


def flux_pipeline(**config: Any) -> diffusers.FluxPipeline:
    """`config`: of the transformer. The noise levels are shifted alike at all sizes, by as much as ComfyUI's."""
    torch.manual_seed(0)
    shift = {"base_shift": 1.15, "max_shift": 1.15}
    return diffusers.FluxPipeline(
        transformer=randomized(diffusers.FluxTransformer2DModel(**{**FLUX, **config})),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **shift),
        vae=flow_vae(),
        text_encoder=clip_encoder(CLIPTextModel, CLIP_WIDTH),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5_encoder(WIDTH),
        tokenizer_2=word_tokenizer(),
    )


PIPELINES = {"sd3": sd3_pipeline, "flux": flux_pipeline}
