"""Writes the trained parts as the files that ship, in the folders in which demo/ holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file
from torch import nn

from ..judge import JUDGE_FILE, Judge
from .autoencoder import narrow, widen
from .clip import CONTEXT, host_text_encoder, read_text_encoder, scorer_config
from .unet import unet

CHECKPOINT = Path("checkpoints", "loco_demo.safetensors")
TRANSFORMER = Path("diffusion_models", "loco_demo_transformer.safetensors")
SCORER = Path("open_clip", "loco_demo_clip.safetensors")
# What the keys of a part begin with in a checkpoint.
UNET, VAE = "model.diffusion_model.", "first_stage_model."


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.detach().cpu().half().contiguous() for key, value in tensors.items()}, path)


def write(out: Path, network: nn.Module, towers: nn.ModuleDict, vae: nn.ModuleDict, judge: nn.Module) -> None:
    checkpoint = {f"{UNET}{key}": value for key, value in network.state_dict().items()}
    checkpoint |= host_text_encoder(towers["text"])
    checkpoint |= {f"{VAE}{key}": value for key, value in widen(vae).items()}
    _save(checkpoint, out / CHECKPOINT)
    scorer = out / SCORER
    _save(towers["scorer"].state_dict(), scorer)
    scorer.with_suffix(".json").write_text(json.dumps(scorer_config(CONTEXT), indent=2) + "\n", encoding="utf-8")
    _save(judge.state_dict(), out / JUDGE_FILE.name)


def write_transformer(out: Path, network: nn.Module) -> None:
    _save({f"{UNET}{key}": value for key, value in network.state_dict().items()}, out / TRANSFORMER)


def read_towers(folder: Path) -> tuple[nn.ModuleDict, nn.ModuleDict, nn.ModuleDict]:
    """The VAE, the text towers and the judge of a finished folder, in float32."""
    checkpoint = load_file(folder / CHECKPOINT)
    scorer, judge = CLIP(**scorer_config(CONTEXT)), Judge()
    scorer.load_state_dict(load_file(folder / SCORER))
    judge.load_state_dict(load_file(folder / JUDGE_FILE.name))
    towers = nn.ModuleDict({"scorer": scorer, "text": read_text_encoder(checkpoint)})
    return narrow(_under(VAE, checkpoint)), towers, nn.ModuleDict({"judge": judge})


def read_unet(folder: Path) -> UNetModel:
    """The U-Net of a finished folder, in float32."""
    network = unet()
    network.load_state_dict(_under(UNET, load_file(folder / CHECKPOINT)))
    return network


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
