"""A change of weights as a LoRA file, which ComfyUI, diffusers and Forge apply without this package.

tensors = lora_tensors({layers.family.lora_key(...): (up, down)}, Naming.KOHYA)
save_lora(tensors, Path("mine.safetensors"), layers, {"loco_strength": "1.0"})
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional

from .files import replacing
from .models.family import Naming
from .models.layers import ModelLayers

# The module of kohya's scripts that reads such tensors.
KOHYA_MODULE = "networks.lora"
# A weight's change is up @ down: up [d_out, r], down [r, d].
Factors = tuple[torch.Tensor, torch.Tensor]


def lora_tensors(factors: Mapping[str, Factors], naming: Naming) -> dict[str, torch.Tensor]:
    """The file's tensors in float16, from the factors of each weight by its key.

    All weights get the same rank, with zeros where they need less: diffusers loses track of alphas that differ.
    """
    rank = max(len(down) for _, down in factors.values())
    up_name, down_name = ("lora_up", "lora_down") if naming is Naming.KOHYA else ("up", "down")
    tensors = {}
    for key, (up, down) in factors.items():
        missing = rank - len(down)
        tensors[f"{key}.{up_name}.weight"] = functional.pad(up, (0, missing)).half().contiguous()
        tensors[f"{key}.{down_name}.weight"] = functional.pad(down, (0, 0, 0, missing)).half().contiguous()
        if naming is Naming.KOHYA:
            tensors[f"{key}.alpha"] = torch.tensor(float(rank))
    return tensors


def save_lora(tensors: dict[str, torch.Tensor], path: Path, layers: ModelLayers, metadata: dict[str, str]) -> None:
    """Writes the file of `lora_tensors`. `metadata` says what it was made from.

    It also gets what managers of LoRA files show and sort by: the model that `layers` are of, where that is a known
    one, the file's name as its title, and for kohya's naming the rank. There is no date: the same edit gives the same.
    """
    naming = Naming.KOHYA if any(name.endswith(".alpha") for name in tensors) else Naming.DIFFUSERS
    told = layers.family.lora_metadata(layers, naming)
    if told:
        told["modelspec.title"] = path.stem
    if naming is Naming.KOHYA:
        rank = str(next(len(tensor) for name, tensor in tensors.items() if name.endswith(".lora_down.weight")))
        told |= {"ss_network_module": KOHYA_MODULE, "ss_network_dim": rank, "ss_network_alpha": f"{rank}.0"}
    with replacing(path) as unfinished:
        save_file(tensors, unfinished, metadata=told | metadata)
