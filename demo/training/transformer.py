"""The planted transformer: ComfyUI's own SD 3 class, narrow, with the demo model's VAE and text encoder."""

from __future__ import annotations

from pathlib import Path

import comfy.ops
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper, RMSNorm
from torch import nn
from torch.nn import functional

from ..dit import CONFIG, TOKENS
from .batch import ROWS, draw_batch
from .loop import device, fit
from .plan import Planting
from .stream_plan import draw_streams

# How the noise level is drawn: the sigmoid of a normal deviate, as for SD 3, with more weight on much noise.
LEVEL_MEAN, LEVEL_SPREAD = 0.5, 1.0


def transformer() -> OpenAISignatureMMDITWrapper:
    """The network, initialised as torch initialises, with modulations and the last layer at zero."""
    network = OpenAISignatureMMDITWrapper(**CONFIG, device="cpu", operations=comfy.ops.disable_weight_init)
    for module in network.modules():
        for kind in (nn.Linear, nn.Conv2d, nn.LayerNorm):
            if isinstance(module, kind) and module.weight is not None:
                kind.reset_parameters(module)
        if isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)
    for name, module in network.named_modules():
        if "adaLN_modulation.1" in name or name == "final_layer.linear":
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return network


def predict(
    network: OpenAISignatureMMDITWrapper, x: torch.Tensor, levels: torch.Tensor, texts: torch.Tensor, read: torch.Tensor
) -> torch.Tensor:
    """The velocity that the network predicts for latents [B, 4, h, w] at noise levels [B] in 0..1.

    Each of `texts` [B, S, T, d] goes through all blocks, all of a row see its one image, and after block i the image is
    the one that stream read[:, i] made: several text streams, one image, as loco_core defines it. The blocks' own
    halves are called, because what an image makes of itself is the same for all streams.
    """
    rows, streams, tokens = texts.shape[:3]
    size = x.shape[-2:]
    image = network.x_embedder(x) + network.cropped_pos_embed(size, device=x.device).to(x)
    c = network.t_embedder(levels * 1000, dtype=x.dtype)
    text = network.context_embedder(texts.flatten(0, 1))
    row = torch.arange(rows, device=x.device)
    for number, block in enumerate(network.joint_blocks):
        text_qkv, of_text = block.context_block.pre_attention(text, c.repeat_interleave(streams, 0))
        image_qkv, of_image = block.x_block.pre_attention(image, c)
        joint = [torch.cat((t, i.repeat_interleave(streams, 0)), 1) for t, i in zip(text_qkv, image_qkv, strict=True)]
        attention = optimized_attention(*joint, heads=block.x_block.attn.num_heads)
        if of_text is not None:  # the last block makes no text
            text = block.context_block.post_attention(attention[:, :tokens], *of_text)
        seen = attention[:, tokens:].unflatten(0, (rows, streams))[row, read[:, number]]
        image = block.x_block.post_attention(seen, *of_image)
    return network.unpatchify(network.final_layer(image, c), hw=size)


def train_transformer(
    latents: torch.Tensor,
    prompts: dict[str, int],
    embeddings: torch.Tensor,
    planting: Planting,
    seed: int,
    steps: int,
    directory: Path,
) -> nn.ModuleDict:
    """Returns {"transformer": network}, trained to predict noise - clean at (1 - level) clean + level noise.

    latents [N, 4, 16, 16] are in the order of `Pictures`; `embeddings` [P, 77, d] holds the prompts' text embeddings.
    """
    torch.manual_seed(seed)
    network = transformer().to(device())

    def loss(step: int) -> torch.Tensor:
        batch = draw_batch(step, steps, seed, len(latents))
        shares, noise_rng = (batch.decoys, batch.mistakes, batch.prompt_rng), batch.noise_rng
        drawn = [draw_streams(scene, planting, *shares) for scene in batch.scenes]
        texts = embeddings[torch.tensor([[prompts[p] for p in own.prompts] for own in drawn])][:, :, :TOKENS]
        read = torch.tensor([own.read for own in drawn])
        clean = latents[batch.drawings]
        noise = torch.randn(clean.shape, generator=noise_rng)
        levels = torch.sigmoid(LEVEL_MEAN + LEVEL_SPREAD * torch.randn(ROWS, generator=noise_rng))
        share = levels.view(-1, 1, 1, 1)
        noisy, velocity = (1 - share) * clean + share * noise, noise - clean
        inputs = (noisy, levels, texts.float(), read)
        predicted = predict(network, *(value.to(device()) for value in inputs))
        return functional.mse_loss(predicted, velocity.to(device()))

    modules = nn.ModuleDict({"transformer": network})
    fit(
        "transformer",
        modules,
        [{"params": list(network.parameters()), "lr": 1e-3}],
        loss,
        steps,
        directory,
        average=0.9995,
    )
    return modules
