"""Telling models apart by all that their images depend on: weights, and what other nodes have patched onto them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy.utils import get_attr

from ...loco_core.contents_digest import contents_digest
from ...loco_core.weights_digest import weights_digest


def model_digest(model: ModelPatcher, clip: CLIP, vae: VAE) -> str:
    """16 hexadecimal digits. Two loads of the same files with the same nodes between have the same, also after they
    have sampled, and in another process.

    What it cannot see the inside of, it takes for another model, rather than for the same.
    """
    patchers = (model, clip.patcher, vae.patcher)
    weights = [weights_digest(weight for _, weight in loaded_weights(patcher)) for patcher in patchers]
    own = [module for patcher in patchers for module in _own_modules(patcher)]
    return contents_digest([weights, *map(_patched, patchers), clip.layer_idx], own)


def patched_weights_digest(patcher: ModelPatcher, prefix: str) -> str:
    """Of the weights whose names begin so, with what is patched onto them."""
    weights = (weight for name, weight in loaded_weights(patcher) if name.startswith(prefix))
    patches = {name: patch for name, patch in patcher.patches.items() if name.startswith(prefix)}
    return contents_digest([weights_digest(weights), patches])


def loaded_weights(patcher: ModelPatcher) -> Iterator[tuple[str, torch.Tensor]]:
    """The parameters by name, as they were loaded: where the host has patched one in place, its backup."""
    for found, parameter in patcher.model.named_parameters():
        name = found.replace("_orig_mod.", "")  # while a compiled module is in place
        yield name, patcher.backup[name].weight if name in patcher.backup else parameter


def _own_modules(patcher: ModelPatcher) -> list[torch.nn.Module]:
    """The modules that the model was loaded with: where the host has put another node's in place, those it replaced.

    A module that another node has compiled is still the model's own inside.
    """
    replaced = patcher.object_patches_backup
    foreign = {id(module) for name in replaced for module in _modules(get_attr(patcher.model, name))}
    own = [module for module in patcher.model.modules() if id(module) not in foreign]
    return own + [module for value in replaced.values() for module in _modules(value)]


def _modules(value: object) -> Iterator[torch.nn.Module]:
    if isinstance(value, torch.nn.Module):
        yield from value.modules()


def _patched(patcher: ModelPatcher) -> list[object]:
    """All that other nodes can have put onto the model."""
    return [patcher.patches, patcher.object_patches, patcher.model_options, patcher.wrappers, patcher.injections]
