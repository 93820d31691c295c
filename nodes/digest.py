"""Telling models apart by all that their images depend on: weights, and what other nodes have patched onto them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE

from ..loco_core.scorer import weights_digest


def model_digest(model: ModelPatcher, clip: CLIP, vae: VAE) -> str:
    """16 hexadecimal digits. Two loads of the same files with the same nodes between have the same.

    What it cannot see the inside of, it takes for another model, rather than for the same.
    """
    weights = (model.model, clip.cond_stage_model, vae.first_stage_model)
    parts = [weights_digest(module.parameters()) for module in weights]
    patched = (model.patches, model.object_patches, model.model_options, clip.patcher.patches, clip.layer_idx)
    digest = hashlib.sha256("".join(parts).encode())
    for text in _contents(patched, set()):
        digest.update(text.encode())
    return digest.hexdigest()[:16]


def _contents(value: object, seen: set[int]) -> Iterator[str]:
    """All that a value holds, as text."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, torch.dtype, torch.device)):
        yield repr(value)
    elif isinstance(value, torch.Tensor):
        yield f"tensor {tuple(value.shape)} {weights_digest([value])}"
    elif id(value) in seen or isinstance(value, torch.nn.Module):
        yield type(value).__name__  # the model's own modules are told apart by their weights
    else:
        seen.add(id(value))
        yield type(value).__name__
        for part in _parts(value):
            yield from _contents(part, seen)


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return [part for key in sorted(value, key=repr) for part in (key, value[key])]
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if isinstance(value, (list, tuple)):
        return value
    if hasattr(value, "__func__"):  # a bound method
        return [value.__func__, value.__self__]
    if hasattr(value, "__code__"):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [value.__qualname__, cells, value.__defaults__]
    return [vars(value)] if hasattr(value, "__dict__") else [repr(value)]
