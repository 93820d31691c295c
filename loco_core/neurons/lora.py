"""Ablated neurons as a LoRA: zero or a scale changes some rows of W, which is unit vectors times these rows.

tensors = ablation_lora(ablation, engine.layers, engine.key_value_weights)
save_lora(tensors, Path("lora.safetensors"), engine.layers, neuron_recipe(neurons, versions))
"""

from __future__ import annotations

import torch

from ..lora_file import Factors, lora_tensors
from ..models.engine import Weights
from ..models.family import Naming
from ..models.layers import PROJECTIONS, ModelLayers
from .ablation import Ablation


def ablation_lora(
    ablation: Ablation, layers: ModelLayers, weights: Weights, naming: Naming = Naming.KOHYA
) -> dict[str, torch.Tensor]:
    """The LoRA of an ablation to zero or to a scale, of all tokens in both branches, in float16.

    `weights(layer)` gives a layer's W_K and W_V.
    """
    naming = Naming.parse(naming, "naming")
    if not all(replacement.scales for replacement in ablation.values()):
        raise ValueError("mode: a LoRA has no bias to hold a mean; choose 'zero' or 'scale'")
    factors: dict[str, Factors] = {}
    for (layer, projection), replacement in ablation.items():
        weight = weights(layer)[PROJECTIONS.index(projection)].float()
        change = replacement.weight_change(weight)[replacement.neurons]
        root = change.norm(dim=1, keepdim=True).sqrt()
        up = torch.zeros(len(weight), len(change))
        up[replacement.neurons, torch.arange(len(change))] = root[:, 0]
        key = layers.family.lora_key(layers[layer], projection, layers, naming)
        factors[key] = up, change / root.clamp(min=torch.finfo().tiny)
    if not any(down.any() for _, down in factors.values()):
        raise ValueError("count: nothing is changed, so there is no LoRA to save; check count, threshold and scale")
    return lora_tensors(factors, naming)
