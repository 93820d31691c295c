"""Checkpoints of full size with random weights, as single files in the layout their families were published in.

Names and shapes are the host's: its own classes for U-Net, text towers and VAE are built without memory, and its own
functions for saving name their tensors. A file is written once, tensor by tensor, to a folder outside the repository.

The values are normally distributed, but not independent of each other: all tensors are cut from one block of numbers,
each beginning elsewhere, for billions of draws would take minutes. Matrices get the variance 1 / inputs, which neither
blows a signal up nor lets it die; what cross-attention adds counts CROSS_ATTENTION_GAIN times, so that each layer alone
shows in the output of a U-Net that has 70 of them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import comfy.supported_models
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.supported_models_base import BASE

from host.full_size.cache_folder import checkpoint_path
from loco_core.files import replacing

# Numbers drawn; a prime, so that no two rows of a matrix larger than it are alike.
BLOCK = 2**24 + 43
# Standard deviation of biases. The host takes an SD 2.x for v-prediction where one of them has more than 0.09.
BIAS = 0.15
CROSS_ATTENTION_GAIN = 4.0
# Of the U-Net's last layer, after an activation that halves the signal: a prediction is as large as the noise.
OUTPUT_GAIN = 2.0
META = torch.device("meta")

UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1] * 9 + [0] * 3,
    "transformer_depth_middle": 1,
    "use_spatial_transformer": True,
    "legacy": False,
}
SDXL_UNET = {
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
    "num_classes": "sequential",
}
REFINER_UNET = {
    "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0],
    "transformer_depth_middle": 4,
    "num_classes": "sequential",
}
VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}


@dataclass(frozen=True)
class Family:
    """A kind of checkpoint: the host's class for it, and what that class leaves open of the U-Net."""

    name: str
    config: type[BASE]
    unet: dict = field(default_factory=dict)


FAMILIES = {
    family.name: family
    for family in (
        Family("sd15", comfy.supported_models.SD15),
        Family("sd15_inpainting", comfy.supported_models.SD15, {"in_channels": 9}),
        Family("sd21", comfy.supported_models.SD20),
        Family("sdxl", comfy.supported_models.SDXL, SDXL_UNET),
        Family("sdxl_refiner", comfy.supported_models.SDXLRefiner, REFINER_UNET),
    )
}


def checkpoint(name: str) -> Path:
    """The file of a family, written if it is not there."""
    path = checkpoint_path(name)
    if not path.exists():
        write_checkpoint(path, FAMILIES[name])
    return path


def write_checkpoint(path: Path, family: Family) -> None:
    with replacing(path) as unfinished:
        _write(unfinished, _tensors(family))


def _tensors(family: Family) -> dict[str, torch.Tensor]:
    """All tensors of the file by name, without values where these are to be drawn."""
    config = family.config({**UNET, **family.config.unet_config, **family.unet})
    config.set_inference_dtype(torch.float16, None)
    towers = config.clip_target().clip(device=META, dtype=torch.float16)
    with META:
        vae = AutoencoderKL(ddconfig=VAE, embed_dim=VAE["z_channels"]).state_dict()
    return {
        **config.process_unet_state_dict_for_saving(config.get_model({}, device=META).diffusion_model.state_dict()),
        **config.process_clip_state_dict_for_saving(towers.state_dict()),
        **config.process_vae_state_dict_for_saving(vae),  # which renames in place
    }


def _write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Writes a .safetensors file in float16 (and int64), with never more than one tensor's values in memory."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        kind, size = ("F16", 2) if tensor.is_floating_point() else ("I64", 8)
        begin, end = end, end + size * tensor.numel()
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors.items():
            for part in _values(name, tensor):
                file.write(part.contiguous().numpy().data)


def _values(name: str, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensor's values from first to last, in parts."""
    if tensor.device != META:
        yield tensor.detach().half() if tensor.is_floating_point() else tensor
    elif tensor.ndim == 1 and name.endswith("weight"):  # of a norm
        yield torch.ones(tensor.shape, dtype=torch.float16)
    else:
        left, begin, deviation = tensor.numel(), zlib.crc32(name.encode()) % BLOCK, _deviation(name, tensor)
        while left:
            part = _block()[begin : begin + left]
            yield part * deviation
            left, begin = left - len(part), 0


def _deviation(name: str, tensor: torch.Tensor) -> float:
    if tensor.ndim < 2:
        return BIAS
    if "embedding" in name:
        return 1.0
    gain = CROSS_ATTENTION_GAIN if ".attn2.to_out." in name else OUTPUT_GAIN if ".diffusion_model.out." in name else 1.0
    return gain * tensor[0].numel() ** -0.5


@cache
def _block() -> torch.Tensor:
    return torch.randn(BLOCK, generator=torch.Generator().manual_seed(0)).half()
