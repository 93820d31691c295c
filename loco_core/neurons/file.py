"""Detected neurons as a .safetensors file: scores and means as tensors, what they were made from as JSON.

save_neurons(neurons, Path("neurons.safetensors"), {"torch": torch.__version__})
neurons = load_neurons(Path("neurons.safetensors"))
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ..files import read_safetensors, replacing
from ..models.layers import PROJECTIONS, LayerSet
from .detection import Neurons, NeuronScores, NeuronTokens

FORMAT = "loco_neurons 2"
FIELDS = ("z", "p", "signal", "mean")
EFFECT = "effect"


def save_neurons(neurons: Neurons, path: Path, versions: dict[str, str]) -> None:
    tensors = {
        f"{layer}.{projection}.{name}": getattr(score, name).contiguous()
        for (layer, projection), score in neurons.scores.items()
        for name in (*FIELDS, EFFECT)
        if getattr(score, name) is not None
    }
    with replacing(path) as unfinished:
        save_file(tensors, unfinished, metadata={"format": FORMAT} | neuron_recipe(neurons, versions))


def neuron_recipe(neurons: Neurons, versions: dict[str, str]) -> dict[str, str]:
    """What the neurons were made from, as a file's metadata."""
    made = {
        "layers": list(neurons.layers),
        "layer_count": neurons.layers.layer_count,
        "width": neurons.width,
        "tokens": neurons.tokens,
        "with_concept": neurons.with_concept,
        "without_concept": neurons.without_concept,
        "text_encoder": neurons.text_encoder,
        "taken": neurons.taken,
    }
    return {"loco_neurons": json.dumps(made, ensure_ascii=False), "loco_versions": json.dumps(versions)}


def load_neurons(path: Path) -> Neurons:
    """The neurons in a file of `save_neurons`; anything else is refused in one sentence."""
    try:
        metadata, tensors = read_safetensors(path, FORMAT)
        made = json.loads(metadata["loco_neurons"])
        layers = LayerSet(tuple(map(int, made["layers"])), int(made["layer_count"]))
        scores = {
            (layer, projection): _scores(tensors, f"{layer}.{projection}")
            for layer in layers
            for projection in PROJECTIONS
            if f"{layer}.{projection}.z" in tensors
        }
        if tensors or not scores:
            raise ValueError(f"its tensors are not of neurons: {', '.join(tensors) or 'none'}")
        return Neurons(
            scores=scores,
            layers=layers,
            width=int(made["width"]),
            tokens=NeuronTokens.parse(made["tokens"], "tokens"),
            with_concept=tuple(map(str, made["with_concept"])),
            without_concept=tuple(map(str, made["without_concept"])),
            text_encoder=str(made["text_encoder"]),
            taken=tuple(map(str, made["taken"])),
        )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"file: {path.name!r} holds no neurons saved by LoCo Neuron Save ({error})") from error


def _scores(tensors: dict[str, torch.Tensor], place: str) -> NeuronScores:
    """Takes one place's tensors out of `tensors`."""
    parts = [tensors.pop(f"{place}.{name}") for name in FIELDS]
    if f"{place}.{EFFECT}" in tensors:
        parts.append(tensors.pop(f"{place}.{EFFECT}"))
    for part in parts:
        alike = part.dtype == torch.float64 and part.ndim == 1 and len(part) == len(parts[0])
        if not alike or not torch.isfinite(part).all():
            raise ValueError(f"the tensors of {place} are not {', '.join(FIELDS)} in float64")
    return NeuronScores(*parts)
