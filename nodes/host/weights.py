"""Weights as the model uses them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter.base import WeightAdapterBase

from .compiled import uncompiled

# Inputs of a weight that are read at once, to spare memory.
AT_ONCE = 1024


@torch.no_grad()
def effective_weight(model: ModelPatcher, name: str) -> torch.Tensor:
    """The weight [d_out, d] of the linear module `name`, in float32 on the CPU.

    It is what the loaded module does to each unit vector: so every format of weights is read by the code that computes
    with it, with all that is patched onto the weight or added to its outputs when the model runs.
    """
    comfy.model_management.load_models_gpu([model])
    module: torch.nn.Linear = model.get_model_object(name)
    units = torch.eye(module.in_features, device=model.load_device, dtype=model.model.get_dtype_inference())
    try:
        with _unrounded_inputs(module):
            none = module.forward(torch.zeros_like(units[:1])).float().cpu()  # its bias, where it has one
            columns = torch.cat([module.forward(part).float().cpu() - none for part in units.split(AT_ONCE)])
    except (RuntimeError, TypeError, AttributeError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):  # of any device; torch has had its plain name since 2.5
            raise
        raise ValueError(_unreadable(name, str(error).splitlines()[0])) from error
    if columns.shape != (module.in_features, module.out_features) or not torch.isfinite(columns).all():
        raise ValueError(_unreadable(name, f"outputs of shape {tuple(columns.shape)}, or NaN or Inf in them"))
    return columns.T.contiguous()


def patch_weights(
    model: ModelPatcher, patches: Mapping[str, WeightAdapterBase], otherwise: str, strength: float = 1.0
) -> None:
    """Adds a patch by the name of each weight; an error that says to do `otherwise` where the host would leave it out.

    The host looks for weights by name in the model as it stands, and a module compiled in place has other names.
    """
    whole = model.get_model_object("diffusion_model")
    if uncompiled(whole) is not whole:
        raise ValueError(
            "model: another node compiled it in a way in which ComfyUI leaves out patches of weights, LoRAs too; "
            f"{otherwise}, or compile with ComfyUI's own TorchCompileModel"
        )
    if model.model.diffusion_model is not whole:  # a clone that is loaded has put in another
        comfy.model_management.unload_all_models()
    refused = patches.keys() - set(model.add_patches(patches, strength_patch=strength))
    if refused:
        raise ValueError(f"model: ComfyUI cannot patch its weight {min(refused)!r}; {otherwise}")


@contextmanager
def _unrounded_inputs(module: torch.nn.Module) -> Iterator[None]:
    """Has the host multiply by dequantised weights: it would round inputs to a scale made for text embeddings."""
    before = getattr(module, "comfy_force_cast_weights", False)
    module.comfy_force_cast_weights = True
    try:
        yield
    finally:
        module.comfy_force_cast_weights = before


def _unreadable(name: str, why: str) -> str:
    return (
        f"model: its weight {name!r} cannot be read ({why}); load the checkpoint in another format. LoCo "
        "Prompt per Layer and LoCo Edit Apply in mode 'context' need not read it"
    )
