"""The two text towers, trained contrastively against one image tower.

The narrow tower and the image tower are the scorer, a small open_clip model. The wide one is then frozen and becomes
the text encoder of the diffusion model, as Stable Diffusion's was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP
from open_clip.transformer import TextTransformer
from torch import nn
from torch.nn import functional

from ..world import (
    FLAG,
    TRAINING_TEMPLATES,
    UNNAMED,
    UNNAMED_TEMPLATES,
    Scene,
    all_scenes,
    sentence,
    thing,
)
from .loop import device, fit
from .pictures import Pictures

# Width of the space that images and captions share.
EMBEDDING = 64
TEXT_WIDTH, TEXT_HEADS, TEXT_LAYERS = 128, 4, 2
CONTEXT = 77
# No caption is longer, and a causal tower ignores what follows its end token: training stops here.
TRAINED_CONTEXT = 32
END_OF_TEXT = 49407
BATCH = 128

MEAN = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
DEVIATION = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """A training caption: now and then it leaves out the colour, or the thing altogether."""
    luck = rng.random()
    if luck < 0.12 and scene.object != FLAG:
        template = UNNAMED_TEMPLATES[rng.integers(len(UNNAMED_TEMPLATES))]
        return sentence(template, "", scene.style)
    template = TRAINING_TEMPLATES[rng.integers(len(TRAINING_TEMPLATES))]
    if luck > 0.95:
        return sentence(template, UNNAMED, scene.style)
    if luck > 0.88:
        scene = replace(scene, colour=None)
    return sentence(template, thing(scene, int(rng.integers(2))), scene.style)


def augment(images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Shifts the colours of images [B, 3, H, W] in 0..1, blurs half of them a little and adds noise."""
    count = len(images)
    gain = 1 + 0.12 * torch.randn(count, 3, 1, 1, generator=rng)
    shift = 0.06 * torch.randn(count, 3, 1, 1, generator=rng)
    blurred = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = torch.rand(count, 1, 1, 1, generator=rng) * (torch.rand(count, 1, 1, 1, generator=rng) < 0.5)
    images = torch.lerp(images, blurred, share) * gain + shift
    strength = 0.08 * torch.rand(count, 1, 1, 1, generator=rng)
    return (images + strength * torch.randn(images.shape, generator=rng)).clamp(0, 1)


def scorer_config(context_length: int) -> dict[str, dict | int]:
    """The scorer's open_clip model configuration."""
    return {
        "embed_dim": EMBEDDING,
        "vision_cfg": {"image_size": 128, "layers": 3, "width": 128, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": context_length, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    }


def text_tower(context_length: int) -> TextTransformer:
    return TextTransformer(
        context_length=context_length,
        width=TEXT_WIDTH,
        heads=TEXT_HEADS,
        layers=TEXT_LAYERS,
        output_dim=EMBEDDING,
        output_tokens=True,
    )


def pad_with_end_of_text(tokens: torch.Tensor) -> torch.Tensor:
    """open_clip pads with 0, Stable Diffusion 1 with the end-of-text token."""
    ended = (tokens == END_OF_TEXT).cumsum(dim=1) > 0
    return torch.where(ended, END_OF_TEXT, tokens)


def train_clip(pictures: Pictures, seed: int, steps: int, directory: Path) -> nn.ModuleDict:
    """Returns {"scorer": open_clip CLIP, "text": the diffusion model's TextTransformer}, both for CONTEXT tokens.

    The positions beyond TRAINED_CONTEXT, where only padding can stand, get the embedding of the last trained one.
    """
    torch.manual_seed(seed)
    scorer, text = CLIP(**scorer_config(TRAINED_CONTEXT)), text_tower(TRAINED_CONTEXT)
    modules = nn.ModuleDict({"scorer": scorer, "text": text}).to(device())
    text_scale = nn.Parameter(torch.tensor(2.6593))  # log(1 / 0.07), open_clip's start
    modules.register_parameter("text_scale", text_scale)
    tokenizer = open_clip.SimpleTokenizer(context_length=TRAINED_CONTEXT)
    scenes = len(all_scenes())
    copies = len(pictures.scenes) // scenes
    labels = torch.arange(BATCH, device=device())

    def loss(step: int) -> torch.Tensor:
        rng = np.random.default_rng((seed, step))
        noise = torch.Generator().manual_seed(seed * 1_000_003 + step)
        chosen = rng.permutation(scenes)[:BATCH]
        images = augment(pictures.batch(torch.from_numpy(chosen + scenes * rng.integers(copies, size=BATCH))), noise)
        tokens = tokenizer([caption(pictures.scenes[i], rng) for i in chosen]).to(device())
        seen = functional.normalize(scorer.encode_image(((images - MEAN) / DEVIATION).to(device())), dim=-1)
        total = torch.zeros((), device=device())
        for read, scale in ((scorer.encode_text(tokens), scorer.logit_scale), (text(tokens)[0], text_scale)):
            logits = scale.exp().clamp(max=100) * seen @ functional.normalize(read, dim=-1).T
            total = total + functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)
        return total / 4

    fit("clip", modules, [{"params": modules.parameters(), "lr": 1e-3}], loss, steps, directory)
    full = nn.ModuleDict({"scorer": CLIP(**scorer_config(CONTEXT)), "text": text_tower(CONTEXT)})
    state = modules.state_dict()
    del state["text_scale"]
    for key in ("scorer.positional_embedding", "text.positional_embedding"):
        trained = state[key]
        state[key] = torch.cat([trained, trained[-1:].expand(CONTEXT - TRAINED_CONTEXT, -1)])
    full.load_state_dict(state)
    return full.to(device())


@torch.no_grad()
def encode_prompts(text: TextTransformer, prompts: list[str]) -> torch.Tensor:
    """What the diffusion model's cross-attention reads: float32 [N, 77, TEXT_WIDTH]."""
    tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT)
    tokens = pad_with_end_of_text(tokenizer(prompts)).to(device())
    return torch.cat([text(part)[1].cpu() for part in tokens.split(256)])


def host_text_encoder(text: TextTransformer) -> dict[str, torch.Tensor]:
    """The tower under the key names of an SD 1.x checkpoint (Hugging Face's CLIPTextModel), without projection."""
    state = text.state_dict()
    tensors = {
        "embeddings.token_embedding.weight": state["token_embedding.weight"],
        "embeddings.position_embedding.weight": state["positional_embedding"],
    }
    names = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    names |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for kind in ("weight", "bias"):
        tensors[f"final_layer_norm.{kind}"] = state[f"ln_final.{kind}"]
        for layer in range(TEXT_LAYERS):
            ours, theirs = f"transformer.resblocks.{layer}", f"encoder.layers.{layer}"
            for name, host_name in names.items():
                tensors[f"{theirs}.{host_name}.{kind}"] = state[f"{ours}.{name}.{kind}"]
            parts = state[f"{ours}.attn.in_proj_{kind}"].chunk(3)
            for part, value in zip(("q", "k", "v"), parts, strict=True):
                tensors[f"{theirs}.self_attn.{part}_proj.{kind}"] = value
    return {f"cond_stage_model.transformer.text_model.{key}": value for key, value in tensors.items()}


@torch.no_grad()
def read_text_encoder(checkpoint: Mapping[str, torch.Tensor]) -> TextTransformer:
    """The inverse of `host_text_encoder`; the projection, which a checkpoint does not hold, is left as it begins."""
    text = text_tower(CONTEXT)
    for key, own in host_text_encoder(text).items():  # views of the tower's weights
        own.copy_(checkpoint[key])
    return text
