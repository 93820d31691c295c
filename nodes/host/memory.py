"""How many images fit into memory at once."""

from __future__ import annotations

import logging

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher

from ...loco_core.models.engine import Sampling

logger = logging.getLogger(__name__)

# By which the host multiplies its own estimate of a denoiser call's memory before it joins chunks of rows.
HOST_MARGIN = 1.5


def out_of_memory(error: Exception) -> bool:
    """Whether the host would call this an out-of-memory error; without a GPU it may say so of every exception."""
    cancelled = isinstance(error, comfy.model_management.InterruptProcessingException)
    return not cancelled and comfy.model_management.is_oom(error)


def check_room_for_images(count: int, sampling: Sampling) -> None:
    """The images of one call are kept in main memory, whatever device makes them; twice while they are put together."""
    needed = 2 * 12 * count * sampling.width * sampling.height
    free = comfy.model_management.get_free_memory(torch.device("cpu"))
    if needed > free:
        raise ValueError(
            f"batch rows: {count} images of {sampling.width} x {sampling.height} pixels take {needed / 1e9:.1f} GB of "
            f"memory, {free / 1e9:.1f} GB are free; give at most {max(1, int(count * free / needed))}"
        )


def rows_at_once(model: ModelPatcher, count: int, sampling: Sampling) -> int:
    """How many of `count` rows go into one sampler call: all, or halved until they fit the free memory.

    Halved, so that a little more or less free memory makes the same batches; one row is tried whatever is free.
    """
    fit, most = int(_free_memory(model) // _memory_per_row(model, sampling)), count
    while most > max(1, fit):
        most //= 2
    if most < count:
        logger.warning("batch rows: memory is free for %d images at once; making %d at a time", max(fit, 0), most)
    return most


def _memory_per_row(model: ModelPatcher, sampling: Sampling) -> float:
    """Bytes that the host sets aside for one row in a denoiser call; it grows with the rows."""
    channels = model.get_model_object("latent_format").latent_channels
    return HOST_MARGIN * model.model.memory_required([1, channels, sampling.height // 8, sampling.width // 8])


def _free_memory(model: ModelPatcher) -> float:
    """Bytes free for sampling on the model's device, once the host has loaded it and put away what it can."""
    device = model.load_device
    free = comfy.model_management.get_free_memory(device)
    if device == model.offload_device:
        return free
    others = [
        loaded.model_loaded_memory()
        for loaded in comfy.model_management.current_loaded_models
        if loaded.device == device and loaded.model is not None and not loaded.model.is_clone(model)
    ]
    return free + sum(others) - (model.model_size() - model.loaded_size())
