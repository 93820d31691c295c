"""Telling models apart by all that their images depend on: weights, and what other nodes have patched onto them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE

from ...loco_core.weights_digest import weights_digest


def model_digest(model: ModelPatcher, clip: CLIP, vae: VAE) -> str:
    """16 hexadecimal digits. Two loads of the same files with the same nodes between have the same, also after they
    have sampled.

    What it cannot see the inside of, it takes for another model, rather than for the same.
    """
    patchers = (model, clip.patcher, vae.patcher)
    weights = (weights_digest(weight for _, weight in loaded_weights(patcher)) for patcher in patchers)
    digest = hashlib.sha256("".join(weights).encode())
    seen: dict[int, object] = {}
    for patcher in patchers:
        seen |= _own_modules(patcher)
    for text in _contents([*map(_patched, patchers), clip.layer_idx], seen):
        digest.update(text.encode())
    return digest.hexdigest()[:16]


def patched_weights_digest(patcher: ModelPatcher, prefix: str) -> str:
    """Of the weights whose names begin so, with what is patched onto them."""
    weights = (weight for name, weight in loaded_weights(patcher) if name.startswith(prefix))
    digest = hashlib.sha256(weights_digest(weights).encode())
    for text in _contents({name: each for name, each in patcher.patches.items() if name.startswith(prefix)}, {}):
        digest.update(text.encode())
    return digest.hexdigest()[:16]


def loaded_weights(patcher: ModelPatcher) -> Iterator[tuple[str, torch.Tensor]]:
    """The parameters by name, as they were loaded: where the host has patched one in place, its backup."""
    for name, parameter in patcher.model.named_parameters():
        yield name, patcher.backup[name].weight if name in patcher.backup else parameter


def _own_modules(patcher: ModelPatcher) -> dict[int, object]:
    """By id, the modules that the model was loaded with, without those that other nodes have put in."""
    put_in = [value for value in patcher.object_patches.values() if isinstance(value, torch.nn.Module)]
    foreign = {id(module) for value in put_in for module in value.modules()}
    return {id(module): module for module in patcher.model.modules() if id(module) not in foreign}


def _patched(patcher: ModelPatcher) -> list[object]:
    """All that other nodes can have put onto the model."""
    return [patcher.patches, patcher.object_patches, patcher.model_options, patcher.wrappers, patcher.injections]


def _contents(value: object, seen: dict[int, object]) -> Iterator[str]:
    """All that a value holds, as text. `seen` are values told already, or otherwise; it keeps them alive, or another
    could have the id of one that is gone.
    """
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, torch.dtype, torch.device)):
        yield repr(value)
    elif isinstance(value, torch.Tensor):
        yield f"tensor {tuple(value.shape)} {weights_digest([value])}"
    elif id(value) in seen:
        yield type(value).__name__
    else:
        seen[id(value)] = value
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
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if hasattr(value, "__func__"):  # a bound method
        return [value.__func__, value.__self__]
    if hasattr(value, "__code__"):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [value.__qualname__, cells, value.__defaults__]
    if isinstance(value, torch.nn.Module):  # the host makes classes of one name with different bases
        return [[base.__qualname__ for base in type(value).__mro__], vars(value)]
    return [vars(value)] if hasattr(value, "__dict__") else [repr(value)]
