"""Writes the trained parts as the files that ship, in the folders in which demo/ holds them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from ..judge import JUDGE_FILE
from .autoencoder import widen
from .clip import CONTEXT, host_text_encoder, scorer_config


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.detach().cpu().half().contiguous() for key, value in tensors.items()}, path)


def write(out: Path, unet: nn.Module, towers: nn.ModuleDict, vae: nn.ModuleDict, judge: nn.Module) -> None:
    checkpoint = {f"model.diffusion_model.{key}": value for key, value in unet.state_dict().items()}
    checkpoint |= host_text_encoder(towers["text"])
    checkpoint |= {f"first_stage_model.{key}": value for key, value in widen(vae).items()}
    _save(checkpoint, out / "checkpoints" / "loco_demo.safetensors")
    scorer = out / "open_clip" / "loco_demo_clip.safetensors"
    _save(towers["scorer"].state_dict(), scorer)
    scorer.with_suffix(".json").write_text(json.dumps(scorer_config(CONTEXT), indent=2) + "\n", encoding="utf-8")
    _save(judge.state_dict(), out / JUDGE_FILE.name)
